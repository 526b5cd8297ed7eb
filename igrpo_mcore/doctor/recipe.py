"""What preflight asks before a run, every check of it: one fault does not hide the next."""

from igrpo_mcore.config.schema import Config
from igrpo_mcore.doctor.finding import Finding, fault, note
from igrpo_mcore.errors import UserError
from igrpo_mcore.families.architecture import Architecture
from igrpo_mcore.fetch import not_here


def model_of(config: Config) -> tuple[Architecture | None, list[Finding]]:
    """The architecture, or why there is none."""
    from igrpo_mcore.families import architecture_of
    from igrpo_mcore.policy.architecture import load_hf_config

    try:
        return architecture_of(load_hf_config(config.model.path), config.model.dtype), []
    except UserError as error:
        return None, [_refused("model", error, config.model.path)]


def recipe_checks(config: Config, architecture: Architecture, gpus: int) -> list[Finding]:
    """Preflight's checks for the ranks of the recipe's layout, and whether this machine has GPUs for them."""
    from igrpo_mcore.policy.architecture import load_hf_config
    from igrpo_mcore.preflight import check_disk, checks, local_ranks

    ranks = local_ranks(config)
    found = [Finding("ranks", f"{ranks} at least")]
    if 0 < gpus < ranks:
        found = [
            note("ranks", f"{ranks}, and {gpus} GPUs here", "start it over nodes with sbatch or torchrun")
        ]
    hf_config = load_hf_config(config.model.path)
    for check in checks(config, hf_config, architecture, ranks, writes_run=bool(config.run.name)):
        try:
            found.append(Finding(check.what, check.find()))
        except UserError as error:
            refused = _refused(check.what, error, *check.reads)
            if refused.found not in (one.found for one in found):  # prompts need the data, and say the same
                found.append(refused)
    if config.run.name:
        try:
            check_disk(config, hf_config)
        except UserError as error:
            found.append(_refused("disk", error))
    return found


def _refused(what: str, error: UserError, *reads: str) -> Finding:
    """The sentence of a refusal, cause and mend apart where it has both."""
    from huggingface_hub import constants

    remote = not_here(error, reads)
    if remote and constants.HF_HUB_OFFLINE:
        return fault(
            what, f"{' or '.join(remote)} not in the hub's cache", "unset HF_HUB_OFFLINE to fetch it"
        )
    text = str(error)
    at = max(text.rfind(mark) for mark in ("; ", ": "))
    return fault(what, text[:at], text[at + 2 :]) if at > 0 else fault(what, text, "see the message")
