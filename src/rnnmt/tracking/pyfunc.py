"""The model that MLflow's registry keeps, as code: no pickle, nothing but its folder and `rnnmt`.

Strings in, translations out: a text for each sentence, or with `nbest` above 1 or `alignments` a
list of its translations with scores. MLflow runs this file where the model is loaded.
"""

import mlflow


class TranslationModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """A translator; its parameters and their defaults are those of `rnnmt.search.answers`."""

    # No hints on `predict`: MLflow would take them for the signature, and drop the parameters. This
    # keeps it from advising them.
    _skip_type_hint_validation = True

    def load_context(self, context):  # type: ignore[no-untyped-def]
        """Read the model's folder, with the setting of the length's limit that was promoted."""
        from rnnmt.model.folder import load_model
        from rnnmt.search.translator import Translator

        ratio = context.model_config["max_length_ratio"]
        self.translator = Translator(load_model(context.artifacts["model"]), ratio)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """A translation, or a list of them, for each sentence; sentences are searched together."""
        from pydantic import ValidationError

        from rnnmt.search.answers import Search, answer, translate

        try:
            search = Search(**(params or {}))
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors())
            raise mlflow.MlflowException.invalid_parameter_value(told.strip()) from None
        sentences = [str(row[0]) for row in model_input.to_numpy().tolist()]
        answers = [answer(t, search) for t in translate(self.translator, sentences, search)]
        if search.nbest == 1 and not search.alignments:
            return [one[0]["text"] for one in answers]
        return answers


mlflow.models.set_model(TranslationModel())
