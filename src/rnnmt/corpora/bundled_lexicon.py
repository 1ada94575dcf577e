"""The word tables of the bundled corpus: which words there are and what goes with what.

Every row is one *sense*: an English word, its French word, and the classes of things it goes
with.  One English word may have several rows with different classes ("old" is "vieux" of a man
and "ancien" of a church): the reader must look at the context to translate it, and the context
always decides.  The order of a table is the order of frequency: the generator draws a row with
a probability that falls with its rank.

Inflection is not stored here; pyRealB derives every form from the lemma.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun: its two lemmas, its French gender and the one class that it belongs to."""

    en: str
    fr: str
    gender: str
    kind: str
    form: str = "count"  # or "single", "mass" (no plural), "plural", "mass_plural" (in French)


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective sense: where its French form stands, and the classes that it describes."""

    en: str
    fr: str
    position: str
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb sense with the classes of its subject and object.

    ``en`` and ``fr`` may hold more than the verb: fixed words that follow it ("be afraid of",
    "avoir peur de").  ``en_link`` and ``fr_link`` are the prepositions before the object.
    """

    en: str
    en_fixed: str
    en_link: str
    fr: str
    fr_fixed: str
    fr_link: str
    subjects: frozenset[str]
    objects: frozenset[str]
    traits: frozenset[str]


@dataclass(frozen=True, slots=True)
class Modal:
    """A verb that governs an infinitive; ``fr_link`` is the French preposition before it."""

    en: str
    fr: str
    fr_link: str
    bare: bool = False  # English infinitive without "to"
    stative: bool = False  # French past is the imparfait


@dataclass(frozen=True, slots=True)
class Preposition:
    """A preposition of place, by the class of the noun that follows it."""

    en: str
    fr: str
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Adverbial:
    """A fixed adverbial; ``times`` are the tenses that it goes with ("past present future")."""

    en: str
    fr: str
    times: frozenset[str]


# Names of groups of classes, so that the rows below stay short.
_GROUPS = {
    "human": "person job kin",
    "alive": "person job kin animal",
    "eatable": "food dish",
    "thing": "tool container device clothes text furniture toy",
    "portable": "tool container device text toy",
    "made": "text art",
    "destination": "building place",
    "concrete": "tool container device clothes text furniture toy vehicle",
    "opening": "=door =window =gate =box =bottle =bag =suitcase =drawer =book =shop",
    "owned": "tool container device clothes text toy vehicle instrument =house =garden =farm",
    "elder": "job kin =man =woman =friend =lady =neighbour =stranger =thief =hero",
    "wares": "tool container device clothes text furniture toy vehicle food dish animal plant",
    "rooms": "=house =kitchen =room =bedroom =office =shop =stable",
    "works": "=house =castle =barn =tower =hotel =school =boat =wall =bridge =shelf",
    "painted": "=house =kitchen =room =bedroom =tower =barn =wall =door =fence =gate =boat",
}

HUMAN = frozenset({"person", "job", "kin"})

_PREPOSITIONS_EN = frozenset(
    ["about", "after", "at", "for", "from", "in", "into", "of", "on", "to", "with"]
)
_PREPOSITIONS_FR = frozenset(["à", "de", "dans", "avec", "sur", "pour"])


def _kinds(names: str) -> frozenset[str]:
    return frozenset(kind for name in names.split() for kind in _GROUPS.get(name, name).split())


def _nouns(kind: str, table: str) -> list[Noun]:
    """Rows "english french gender [form]"."""
    return [Noun(en, fr, gender, kind, *form) for en, fr, gender, *form in _rows(table)]


def fits(noun: Noun, kinds: frozenset[str]) -> bool:
    """Whether the noun, by its class or itself ("=door"), is meant, and not barred ("!door")."""
    return f"!{noun.en}" not in kinds and (noun.kind in kinds or f"={noun.en}" in kinds)


def _rows(table: str) -> list[list[str]]:
    return [row.split() for row in table.replace("\n", ",").split(",") if row.strip()]


NOUNS: list[Noun] = [
    *_nouns(
        "person",
        """man homme m, woman femme f, child enfant m, girl fille f, boy garçon m,
        friend ami m, neighbour voisin m, student étudiant m, guest invité m, tourist touriste m,
        baby bébé m, lady dame f, colleague collègue m, stranger inconnu m, thief voleur m,
        customer client m, pupil élève m, prisoner prisonnier m, hero héros m, traveller voyageur m,
        winner gagnant m, witness témoin m, patient patient m, passenger passager m""",
    ),
    *_nouns(
        "job",
        """teacher professeur m, doctor médecin m, farmer fermier m, nurse infirmier f,
        baker boulanger m, writer écrivain m, singer chanteur f, engineer ingénieur m,
        lawyer avocat m, painter peintre m, butcher boucher m, gardener jardinier m,
        soldier soldat m, waiter serveur m, journalist journaliste m, judge juge m,
        musician musicien m, actress acteur f, king roi m, queen reine f, director directeur m,
        mechanic mécanicien m, dentist dentiste m, pilot pilote m,
        fisherman pêcheur m, architect architecte m, princess princesse f, sailor marin m""",
    ),
    *_nouns(
        "kin",
        """mother mère f single, father père m single, sister soeur f, brother frère m, son fils m,
        daughter fille f, uncle oncle m, aunt tante f, grandmother grand-mère f single,
        grandfather grand-père m single, cousin cousin m,
        husband mari m single, wife femme f single,
        nephew neveu m, niece nièce f""",
    ),
    *_nouns(
        "animal",
        """dog chien m, cat chat m, horse cheval m, bird oiseau m, cow vache f, lamb agneau m,
        mouse souris f, rabbit lapin m, hen poule f, pig cochon m, duck canard m, goat chèvre f,
        wolf loup m, fox renard m, bear ours m, donkey âne m, monkey singe m, owl hibou m,
        snake serpent m, tiger tigre m, squirrel écureuil m, frog grenouille f, lion lion m,
        turtle tortue f, elephant éléphant m""",
    ),
    *_nouns(
        "food",
        """apple pomme f, cake gâteau m, orange orange f, egg oeuf m, sandwich sandwich m,
        tomato tomate f, carrot carotte f, pear poire f, banana banane f, bean haricot m,
        biscuit biscuit m, strawberry fraise f, lemon citron m, peach pêche f, onion oignon m,
        cherry cerise f, mushroom champignon m, pineapple ananas m""",
    ),
    *_nouns(
        "dish",
        """bread pain m mass, cheese fromage m mass, meat viande f mass, soup soupe f mass,
        rice riz m mass, fish poisson m mass, butter beurre m mass, honey miel m mass,
        chicken poulet m mass, ham jambon m mass, chocolate chocolat m mass, jam confiture f mass,
        salad salade f mass""",
    ),
    *_nouns(
        "drink",
        """water eau f mass, milk lait m mass, coffee café m mass, tea thé m mass, wine vin m mass,
        beer bière f mass, juice jus m mass""",
    ),
    *_nouns(
        "clothes",
        """shirt chemise f, hat chapeau m, coat manteau m, dress robe f, shoe chaussure f,
        skirt jupe f, jacket veste f, tie cravate f, scarf écharpe f, glove gant m, boot botte f,
        sock chaussette f, belt ceinture f, sweater chandail m,
        uniform uniforme m, apron tablier m, crown couronne f""",
    ),
    *_nouns(
        "text",
        """book livre m, letter lettre f, newspaper journal m, story histoire f, poem poème m,
        novel roman m, map carte f, message message m, report rapport m, contract contrat m,
        dictionary dictionnaire m, recipe recette f, magazine revue f, article article m,
        list liste f""",
    ),
    *_nouns(
        "art",
        """song chanson f, film film m, picture tableau m, photograph photo f, play pièce f,
        concert concert m, statue statue f, symphony symphonie f""",
    ),
    *_nouns(
        "tool",
        """key clé f, knife couteau m, umbrella parapluie m, pen stylo m, spoon cuillère f,
        hammer marteau m, ladder échelle f, fork fourchette f, rope corde f, pencil crayon m,
        broom balai m, axe hache f, saw scie f, needle aiguille f, shovel pelle f, stick bâton m,
        candle bougie f, match allumette f""",
    ),
    *_nouns(
        "container",
        """bag sac m, box boîte f, bottle bouteille f, glass verre m, basket panier m,
        cup tasse f, plate assiette f, suitcase valise f, bucket seau m, pot pot m, vase vase m,
        wallet portefeuille m, drawer tiroir m""",
    ),
    *_nouns(
        "device",
        """phone téléphone m, computer ordinateur m, clock horloge f, lamp lampe f,
        radio radio f, camera caméra f, watch montre f, mirror miroir m, printer imprimante f,
        engine moteur m, bell cloche f, oven four m""",
    ),
    *_nouns(
        "furniture",
        """table table f, chair chaise f, bed lit m, door porte f, window fenêtre f,
        cupboard armoire f, desk bureau m, sofa canapé m, wall mur m, roof toit m, shelf étagère f,
        carpet tapis m, gate portail m, armchair fauteuil m, bench banc m, staircase escalier m,
        fence clôture f""",
    ),
    *_nouns(
        "toy",
        """ball ballon m, doll poupée f, present cadeau m, ring bague f,
        flag drapeau m, coin pièce f, stamp timbre m, necklace collier m, medal médaille f""",
    ),
    *_nouns(
        "vehicle",
        """car voiture f, train train m, bus autobus m, bicycle vélo m, boat bateau m,
        plane avion m, truck camion m, taxi taxi m, ship navire m, tram tramway m,
        motorcycle moto f, tractor tracteur m""",
    ),
    *_nouns(
        "building",
        """house maison f, school école f, church église f, shop magasin m, hospital hôpital m,
        hotel hôtel m, museum musée m, castle château m, library bibliothèque f, kitchen cuisine f,
        restaurant restaurant m, office bureau m, room pièce f, bedroom chambre f, farm ferme f,
        station gare f, factory usine f, theatre théâtre m, bakery boulangerie f, barn grange f,
        tower tour f, palace palais m, prison prison f, stable écurie f, university université f,
        cathedral cathédrale f, pharmacy pharmacie f, bank banque f""",
    ),
    *_nouns(
        "place",
        """garden jardin m, park parc m, village village m, city ville f, forest forêt f,
        street rue f, beach plage f, field champ m, market marché m, island île f, valley vallée f,
        country pays m, square place f, courtyard cour f, port port m, desert désert m,
        neighbourhood quartier m, region région f""",
    ),
    *_nouns(
        "landmark",
        """river rivière f, tree arbre m, bridge pont m, lake lac m, mountain montagne f,
        road route f, hill colline f, sea mer f, fountain fontaine f, pond étang m, oak chêne m,
        well puits m""",
    ),
    *_nouns(
        "plant",
        """flower fleur f, rose rose f, plant plante f, vegetable légume m, tulip tulipe f,
        bush buisson m, lily lis m""",
    ),
    *_nouns(
        "instrument",
        """piano piano m, guitar guitare f, violin violon m, flute flûte f, drum tambour m,
        trumpet trompette f, cello violoncelle m, harp harpe f, organ orgue m""",
    ),
    *_nouns(
        "game",
        """football football m mass, chess échec m mass_plural, tennis tennis m mass,
        card carte f plural, rugby rugby m mass, golf golf m mass""",
    ),
    *_nouns(
        "science",
        """history histoire f mass, music musique f mass, geography géographie f mass,
        chemistry chimie f mass, physics physique f mass, biology biologie f mass,
        philosophy philosophie f mass""",
    ),
    *_nouns(
        "idea",
        """question question f, problem problème m, idea idée f, answer réponse f, plan projet m,
        decision décision f, secret secret m, solution solution f, rule règle f, mistake erreur f,
        lesson leçon f, word mot m, reason raison f, law loi f, proposal proposition f""",
    ),
    *_nouns(
        "event",
        """party fête f, meeting réunion f, exam examen m, journey voyage m, war guerre f,
        meal repas m, storm tempête f, game match m, wedding mariage m, race course f,
        lecture conférence f, strike grève f""",
    ),
]


def _adjectives(table: str) -> list[Adjective]:
    """Rows "english french position: classes"."""
    rows = (row.split(":") for row in table.strip().splitlines())
    heads = ((*head.split(), kinds) for head, kinds in rows)
    return [Adjective(en, fr, position, _kinds(kinds)) for en, fr, position, kinds in heads]


# The first row that fits the noun is the sense of an English adjective.
ADJECTIVES: list[Adjective] = _adjectives(
    """big gros pre: animal food tool container toy
    big grand pre: building place =lake =tree =mountain furniture vehicle
    small petit pre: person !friend animal building place thing vehicle plant food landmark
    old ancien post: building text instrument art
    old vieux pre: elder !daughter !son !niece !nephew animal thing vehicle =tree =bridge
    new nouveau pre: job building thing vehicle art idea
    beautiful beau pre: person job animal building place landmark plant art clothes toy
    young jeune pre: person job animal
    good bon pre: job food dish drink text art idea device event
    happy heureux post: human
    black noir post: animal clothes vehicle container device furniture tool
    white blanc post: animal clothes vehicle container furniture building plant
    red rouge post: clothes vehicle container furniture toy plant
    tall grand post: =man
    tall grand pre: person job
    tall haut post: =tower =castle =cathedral =tree =wall =fence
    long long pre: text art event idea =rope =road =river =bridge =street =ladder
    expensive cher post: device vehicle clothes furniture toy building instrument
    bad mauvais pre: job food dish drink idea art text
    tired fatigué post: human animal
    hungry affamé post: person animal
    rich riche post: person job kin place
    sad triste post: human art text
    kind gentil post: human =dog =horse
    strong fort post: human animal
    strong solide post: tool furniture container
    light léger post: tool container device furniture =meal
    light clair post: =room =bedroom =kitchen =office =house
    heavy lourd post: tool container device furniture
    hot chaud post: drink =soup =bread =meat =country =region =desert
    cold froid post: drink dish building =country =region =sea =river =lake
    clean propre post: clothes container vehicle building furniture
    dirty sale post: clothes container vehicle building furniture tool
    green vert post: clothes vehicle container furniture plant
    blue bleu post: clothes vehicle container furniture toy
    yellow jaune post: clothes vehicle container plant
    dangerous dangereux post: =wolf =bear =snake =tiger =lion =knife =road =river =mountain idea
    famous célèbre post: person job art building place text
    quiet calme post: place building human
    intelligent intelligent post: human animal
    interesting intéressant post: text art idea event job
    important important post: idea text event job
    difficult difficile post: idea event game
    hard dur post: =bread =cheese =chair =bed =bench
    easy facile post: idea =exam =race =journey text
    sick malade post: human animal
    short petit pre: person job !friend
    short court post: text art clothes event =rope =stick
    full plein post: container
    empty vide post: container building vehicle
    sweet sucré post: food drink dish
    ripe mûr post: food
    fresh frais post: food dish
    brave courageux post: human
    angry fâché post: human
    honest honnête post: human
    lazy paresseux post: human animal
    polite poli post: human
    nervous nerveux post: human animal
    jealous jaloux post: human
    curious curieux post: human animal
    foreign étranger post: person job =city =country
    modern moderne post: building art furniture device
    narrow étroit post: =bridge =road building =street furniture
    wide large post: =road =river =street =bed =bridge =gate
    deep profond post: =lake =sea =river =well =pond =forest
    noisy bruyant post: place vehicle device human
    funny drôle post: human art text
    boring ennuyeux post: text art event =teacher =director
    simple simple post: idea text
    wet mouillé post: clothes animal furniture
    dry sec post: clothes plant =well
    soft mou post: food
    soft doux post: =bed =armchair =carpet =sofa clothes
    round rond post: furniture container
    square carré post: furniture container
    precious précieux post: toy text instrument
    useful utile post: tool text idea device
    wild sauvage post: animal plant
    fast rapide post: vehicle animal
    slow lent post: vehicle animal human
    poor pauvre post: person job =country =village =region
    pretty joli pre: person clothes plant toy place
    thick épais post: text clothes =wall
    elegant élégant post: clothes person job
    delicious délicieux post: food dish drink =meal
    shy timide post: human
    wise sage post: human
    strange étrange post: person text art idea animal
    serious sérieux post: human
    serious grave post: idea
    huge énorme post: animal building =tree =mountain =lake food container
    fragile fragile post: container toy device
    """
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Adjectives without a degree; of size; and those that are odd beside another adjective.
ABSOLUTE = _set(
    "full empty ripe sick angry black white red green blue yellow foreign round square wild new "
    "delicious huge"
)
SIZES = _set("huge tall short long wide narrow deep light")
ABSTRACT = _set("good bad new happy sad")

# People whom one may call one's own ("my doctor", but not "my thief").
OWNED = _set(
    "friend neighbour colleague guest customer patient pupil student teacher doctor lawyer dentist "
    "butcher baker gardener director baby child"
)

# Who has no wife, no husband and no children; and the gender of those who have a spouse.
YOUNG = _set("child girl boy baby pupil")
SPOUSES = {"wife": "m", "husband": "f"}


def _verbs(table: str) -> list[Verb]:
    """Rows "english | french | subjects | objects [| traits]"; no object: intransitive."""
    verbs = []
    for row in table.strip().splitlines():
        en, fr, subjects, objects, *traits = (cell.strip() for cell in row.split("|"))
        verbs.append(
            Verb(
                *_split_verb(en, _PREPOSITIONS_EN),
                *_split_verb(fr, _PREPOSITIONS_FR),
                _kinds(subjects),
                _kinds(objects),
                frozenset(" ".join(traits).split()),
            )
        )
    return verbs


def _split_verb(words: str, prepositions: frozenset[str]) -> tuple[str, str, str]:
    """The verb, its fixed words and its preposition: "be afraid of" is (be, afraid, of)."""
    verb, *rest = words.split()
    link = rest.pop() if rest and rest[-1] in prepositions else ""
    return verb, " ".join(rest), link


# Traits of a verb:
#   state      French past is the imparfait; no English progressive
#   point      an instant: no progressive
#   motion     one does it in order to do something else
#   chance     nobody wants or decides it
#   passive    may be passive
#   reflexive  in French
#   swap       the English subject is the French object
#   dative     its object after "à" becomes a clitic: "lui"
#   generic    its object is a kind of thing: "likes cats"
#   give       may have a human recipient
#   full       its object after a preposition: never a clitic, "dont" in a relative clause
#   place      must have a place (to_place: a direction); at: may have one
#   way        may have a manner
VERBS: list[Verb] = _verbs(
    """see | voir | alive | human animal concrete landmark building art | passive point
    eat | manger | alive | food dish | passive at
    have | avoir | human | owned animal =idea =problem =question =plan =shop | state
    read | lire | human | text | passive way at
    drink | boire | alive | drink | at
    buy | acheter | human | wares =house =farm =hotel =castle =shop | passive point
    love | aimer | human | human animal art place | state generic
    know | connaître | human | human place text art | state
    write | écrire | human | text !map | passive at
    sleep | dormir | alive | | at
    find | trouver | human animal | portable clothes animal | passive point at
    wear | porter | human | clothes | at
    carry | porter | human | container device furniture |
    work | travailler | human | | at way motion
    look for | chercher | human animal | portable human clothes | at
    open | ouvrir | human | opening =letter | passive point way
    close | fermer | human | opening | passive point way
    leave | quitter | human | destination human | point
    leave | partir | human vehicle | | point motion
    leave | laisser | human | portable clothes | point place
    watch | regarder | human animal | animal =film =play =game =race =wedding =lecture | at
    look at | regarder | human | human text vehicle landmark portable | way
    wait for | attendre | human | human =train =bus =taxi =tram | at
    listen to | écouter | human | human =song =concert =radio =story =symphony | at
    play | jouer | =child =boy =girl =baby animal | | at
    play | jouer à | human | game | at
    play | jouer de | human | instrument | at way
    speak to | parler à | human | human | dative way
    talk about | parler de | human | human place art event | full
    think about | penser à | human | human event idea place | full
    wake up | réveiller | human | | reflexive point
    hurry | dépêcher | human | | reflexive motion
    rest | reposer | human | | reflexive at
    stop | arrêter | human vehicle | | reflexive point at motion
    live | habiter | human | | state place
    meet | rencontrer | human | human | point at passive chance
    help | aider | human | human | passive
    visit | visiter | human | destination | passive
    visit | rendre visite à | human | human | dative
    ask | poser | human | =question | point
    answer | répondre à | human | human =question =letter =message | dative point
    call | appeler | human | human animal | passive point
    phone | téléphoner à | human | human | dative point
    obey | obéir à | kin animal person | =king =queen =judge =teacher =director kin | dative
    give | donner | human | portable clothes food dish animal | passive point give
    show | montrer | human | portable art clothes | passive point give
    sell | vendre | human | wares | passive point give
    send | envoyer | human | text toy | passive point give
    need | avoir besoin de | human | human portable device vehicle idea drink | state full
    be afraid of | avoir peur de | human animal | animal =storm =war =exam job | state full
    be proud of | être fier de | human | kin text | state full
    be hungry | avoir faim | alive | | state
    be thirsty | avoir soif | alive | | state
    be cold | avoir froid | human | | state
    be right | avoir raison | human | | state
    be sleepy | avoir sommeil | human | | state
    break | casser | human animal | container device toy =chair =window =ladder | passive point
    wash | laver | human | clothes vehicle container animal =window | passive at
    clean | nettoyer | human | rooms furniture vehicle | passive
    paint | peindre | human | painted | passive
    build | construire | human | works | passive
    repair | réparer | human | vehicle device furniture =bridge | passive way
    drive | conduire | human | =car =truck =bus =taxi =tractor | way
    miss | rater | human | =train =bus =plane =boat =meeting =exam =wedding | point chance
    miss | manquer à | human | human | swap state
    run | courir | alive | | at way motion
    run | tenir | job kin | =shop =hotel =restaurant =bakery =pharmacy | state
    grow | pousser | plant =tree | | at chance
    grow | cultiver | =farmer =gardener =man =woman kin | plant =tomato =bean =carrot | at
    cook | préparer | human | dish =meal | passive at way
    prepare | préparer | human | =meal =lesson =party =journey =lecture | passive
    sing | chanter | human | =song | at
    sing | chanter | human =bird | | at
    dance | danser | human | | at
    cry | pleurer | human | | at
    laugh | rire | human | | at
    smile | sourire | human | |
    arrive | arriver | human vehicle | | point at
    die | mourir | animal job kin plant | | point chance
    fall | tomber | human =glass =book =cup =vase =plate =apple =tree | | point chance
    go to | aller à | human | =church =school =market =museum =theatre =station =bank | full motion
    come from | venir de | human | =city =village =island =country =farm =valley | full state motion
    enter | entrer dans | human animal | building | point full motion
    return | rendre | human | portable | point passive
    return | revenir | human vehicle | | point motion
    draw | dessiner | human | animal plant building human | at
    choose | choisir | human | portable clothes art animal | passive point
    lose | perdre | human | portable clothes =race =game =war | point chance
    hide | cacher | human | portable food | passive at
    forget | oublier | human | portable clothes idea | point chance
    remember | souvenir de | human | human place event idea | reflexive state full
    hate | détester | human | human animal art place science | state generic
    prefer | préférer | human | art food dish drink science game animal | state generic
    like | aimer | human | food dish drink science game idea | state generic
    hear | entendre | human animal | human animal =bell =song =storm | passive point
    follow | suivre | human animal | human animal vehicle | passive
    protect | protéger | human | human animal place | passive
    hold | tenir | human | portable | at
    push | pousser | human | furniture vehicle | passive
    pull | tirer | human animal | furniture vehicle =rope |
    throw | lancer | human | =ball =stick =rope | point
    catch | attraper | human animal | animal =thief =ball | passive point
    bite | mordre | animal | human animal | passive point
    chase | poursuivre | animal human | animal =thief | passive
    arrest | arrêter | =judge =soldier | =thief =stranger =witness | passive point
    feed | nourrir | human | animal =baby | passive
    cut | couper | human | food =bread =cheese =meat =rope plant | passive
    fill | remplir | human | =bottle =glass =cup =basket =bucket =box =bag | passive point
    switch on | allumer | human | =lamp =radio =oven =computer =engine | passive point
    take | prendre | human | portable =train =bus =taxi =plane =photograph | point
    take | emmener | human | human | to_place
    invite | inviter | human | human | passive point
    thank | remercier | human | human | point
    greet | saluer | human | human | point way
    marry | épouser | job =man =woman =friend | job =man =woman =friend =stranger | point
    hire | engager | =director =king =queen =farmer | job person | passive point
    teach | enseigner | =teacher =musician =writer kin | science | passive at
    study | étudier | human | science text plant | at way
    learn | apprendre | human | science =lesson =song =poem =rule =word |
    understand | comprendre | human | idea text human | state
    explain | expliquer | human | idea text | passive point give
    lend | prêter | human | portable vehicle clothes instrument | point give
    offer | offrir | human | toy plant drink =book | point give
    tell | raconter | human | =story | passive give
    sign | signer | human | =contract =letter =report | passive point
    translate | traduire | human | text | passive way
    publish | publier | =writer =journalist =director | text =photograph | passive point
    solve | résoudre | human | =problem | passive point
    accept | accepter | human | =proposal =idea =present =plan =medal | passive point
    refuse | refuser | human | =proposal =idea =present =plan =medal | passive point
    cross | traverser | human animal vehicle | =river =bridge =road =street =city =forest | way
    travel | voyager | human | | way
    burn | brûler | human | text =bridge | passive point
    plant | planter | human | plant =tree =oak | passive at
    water | arroser | human | plant =tree =garden =field | passive
    pick | cueillir | human | plant =apple =cherry =strawberry =pear | at
    hunt | chasser | human animal | =wolf =fox =bear =duck =rabbit =mouse | passive
    steal | voler | =thief =monkey =stranger =fox =boy | portable device food | passive point
    admire | admirer | human | human art landmark building | state
    trust | faire confiance à | human | human | state dative
    believe | croire | human | human =story | state
    recognise | reconnaître | human | human place vehicle | point passive
    """
)

# Verbs whose past looks like their present: "they read".
UNCHANGED = frozenset({"read", "cut"})

# Verbs with a clause for object, and the tenses that the clause may take.
SAYING: list[Verb] = _verbs(
    """think | penser | human | | state
    know | savoir | human | | state
    say | dire | human | | point
    believe | croire | human | | state
    hope | espérer | human | | state
    forget | oublier | human | | point
    understand | comprendre | human | | point
    """
)

MODALS: list[Modal] = [
    Modal("can", "pouvoir", "", bare=True, stative=True),
    Modal("must", "devoir", "", bare=True, stative=True),
    Modal("want", "vouloir", "", stative=True),
    Modal("try", "essayer", "de"),
    Modal("decide", "décider", "de"),
    Modal("begin", "commencer", "à"),
    Modal("like", "aimer", "", stative=True),
    Modal("learn", "apprendre", "à"),
    Modal("hope", "espérer", "", stative=True),
    Modal("refuse", "refuser", "de"),
    Modal("forget", "oublier", "de"),
    Modal("promise", "promettre", "de"),
]

PLACES: list[Preposition] = [
    Preposition("in", "dans", _kinds("building =garden =park =forest =street =courtyard =field")),
    Preposition("near", "près de", _kinds("building landmark place")),
    Preposition("behind", "derrière", _kinds("building =tree =hill =wall")),
    Preposition("in front of", "devant", _kinds("building =fountain")),
    Preposition("on", "sur", _kinds("=beach =square =bridge =bench =hill")),
    Preposition("under", "sous", _kinds("=tree =bridge =oak")),
    Preposition("far from", "loin de", _kinds("=city =village =sea =station =school")),
    Preposition("opposite", "en face de", _kinds("building =park")),
]

# Where one may live.
HOMES: list[Preposition] = [
    Preposition("in", "dans", _kinds("=house =village =city =castle =farm =hotel =palace =forest")),
    Preposition("near", "près de", _kinds("building landmark place")),
    Preposition("far from", "loin de", _kinds("=city =village =sea =station =school")),
    Preposition("opposite", "en face de", _kinds("building =park")),
    Preposition("on", "sur", _kinds("=square =hill =beach")),
]

# Where a small thing may be put or left.
SURFACES: list[Preposition] = [
    Preposition("on", "sur", _kinds("=table =chair =bed =desk =shelf =bench")),
    Preposition(
        "in", "dans", _kinds("=box =bag =drawer =basket =suitcase =cupboard building =car")
    ),
    Preposition("under", "sous", _kinds("=bed =table =tree =chair =carpet")),
    Preposition("behind", "derrière", _kinds("=door =sofa =wall =tree")),
]

DIRECTIONS: list[Preposition] = [
    Preposition("to", "à", _kinds("=school =hospital =theatre =museum =station =beach =market")),
]


def _adverbials(table: str) -> list[Adverbial]:
    """Rows "english | french | tenses"."""
    rows = ([cell.strip() for cell in row.split("|")] for row in table.strip().splitlines())
    return [Adverbial(en, fr, frozenset(times.split())) for en, fr, times in rows]


TIMES: list[Adverbial] = _adverbials(
    """yesterday | hier | past
    today | aujourd'hui | present future
    every day | tous les jours | habit
    tomorrow | demain | future
    now | maintenant | present
    this morning | ce matin | past
    tonight | ce soir | future
    last week | la semaine dernière | past
    on Sunday | dimanche | past future
    next year | l'année prochaine | future
    last night | hier soir | past
    every morning | tous les matins | habit
    next week | la semaine prochaine | future
    two days ago | il y a deux jours | past
    in the evening | le soir | habit
    last summer | l'été dernier | past
    next month | le mois prochain | future
    on Mondays | le lundi | habit
    last year | l'année dernière | past
    before noon | avant midi | past future
    in winter | en hiver | habit
    soon | bientôt | future
    a long time ago | il y a longtemps | past
    at midnight | à minuit | past future
    in an hour | dans une heure | future
    """
)

MANNERS: list[Adverbial] = _adverbials(
    """slowly | lentement | any
    carefully | soigneusement | human
    quickly | rapidement | any
    together | ensemble | plural
    quietly | calmement | any
    in silence | en silence | human
    without help | sans aide | human
    patiently | patiemment | human
    """
)

# Adverbs of frequency, which stand inside the English verb group and after the French verb.
FREQUENCIES: list[Adverbial] = _adverbials(
    """often | souvent | habit
    always | toujours | habit
    sometimes | parfois | habit
    rarely | rarement | habit
    """
)

# Adverbs of degree before an adjective.
DEGREES: list[Adverbial] = _adverbials(
    """very | très | any
    too | trop | any
    really | vraiment | any
    so | si | any
    """
)

NUMBERS: list[tuple[str, str]] = [
    ("two", "deux"), ("three", "trois"), ("four", "quatre"), ("five", "cinq"), ("ten", "dix"),
    ("six", "six"), ("seven", "sept"), ("twelve", "douze"), ("eight", "huit"), ("twenty", "vingt"),
]  # fmt: skip
