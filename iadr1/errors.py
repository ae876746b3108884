"""The errors a user can cause; each message says what is wrong, what was found and what to do."""


class Iadr1Error(Exception):
    """Base of every error that ends a command with one clear line and exit code 1."""


class ParamsError(Iadr1Error):
    """A parameter file that cannot be used."""


class DatasetError(Iadr1Error):
    """A data set that cannot be read or does not hold what it should."""


class ModelError(Iadr1Error):
    """A model folder that cannot be loaded, trained or saved."""


class ReportError(Iadr1Error):
    """A predictions or report file of another form than ours."""


class TeacherError(Iadr1Error):
    """A teacher of Expert-AD that cannot be reached, refuses, or costs more than allowed."""


class EngineError(Iadr1Error):
    """A model behind a network or in another program that cannot be reached, refuses, or costs more than allowed."""


class Stopped(Iadr1Error):
    """A training that was asked to stop (SIGTERM) and can be resumed; the command ends with exit code 143."""
