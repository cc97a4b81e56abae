"""Plan feedback: join everything as the command does, and write nothing."""

from job.config.commands import FeedbackConfig
from job.config.load import resolved_yaml
from job.feedback.held_out import EvaluationSet, read_evaluation_sets
from job.feedback.output import find_finished, identity_of
from job.feedback.run import Sources, check_limits, find_sources, make_feedback, read_rows
from job.feedback.screen import data_sentences
from job.preflight.access import probe_output
from job.preflight.checks import Check, Found, Plan, check, check_value
from job.printable import number_of
from job.storage.open import open_store


def plan_feedback(config: FeedbackConfig) -> Plan:
    """Plan feedback: what would be joined, which data that gives, and where it goes."""
    sources_check, sources = check_value("sources", lambda: _find(config))
    sets_check, sets = check_value("evaluations", lambda: _read_sets(config))
    checks = [sources_check, sets_check]
    if sources is not None:
        checks.append(check("verdicts", lambda: _read(config, sources), "verdicts"))
    if sources is not None and sets is not None:
        checks += _joining(config, sources, sets)
    done = False
    if sources is not None:
        output_check, found = check_value(
            "output", lambda: _look_at_output(config, sources), "output"
        )
        checks.append(output_check)
        done = bool(found)
    title = f"plan of feedback run {config.run}"
    return Plan(title, checks, resolved_yaml(config), config.run, done=done)


def _find(config: FeedbackConfig) -> Found[Sources]:
    sources = find_sources(config)
    files = number_of(len(sources.files), "file", "files")
    nights = number_of(len(sources.nights), "night", "nights")
    return Found(f"{files} of verdicts, {nights}", sources)


def _read_sets(config: FeedbackConfig) -> Found[list[EvaluationSet]]:
    sets = read_evaluation_sets(config)
    if not sets:
        text = "none is named: nothing is known of what evaluations use (evaluation_sets, champion)"
        return Found(text, sets, is_known=False)
    lines = [f"{one.name}: {len(one.conversations):,} conversations" for one in sets]
    return Found("\n".join(lines), sets)


def _read(config: FeedbackConfig, sources: Sources) -> str:
    return number_of(len(read_rows(config, sources)), "row", "rows")


def _joining(config: FeedbackConfig, sources: Sources, sets: list[EvaluationSet]) -> list[Check]:
    def join() -> Found[None]:
        feedback = make_feedback(config, sources, sets)
        check_limits(config, feedback.joined)
        numbers = feedback.numbers
        lines = [f"{numbers['joined_rows']:,} of {numbers['rows']:,} rows join a summary"]
        lines += [f"{each['reason']}: {each['rows']:,}" for each in numbers["unmatched"]]
        for kind, counts in numbers["data"].items():
            sides = ", ".join(f"{count:,} {side}" for side, count in counts.items())
            lines.append(f"{kind}: {sides}")
        return Found("\n".join([*lines, *data_sentences(numbers)]), None, facts=numbers)

    return [check_value("join", join)[0]]


def _look_at_output(config: FeedbackConfig, sources: Sources) -> Found[bool]:
    store = open_store(config.output, config.storage)
    if find_finished(store, identity_of(config, sources.files, sources.nights)) is not None:
        return Found(f"{store.uri}  already done", True)
    return Found(probe_output(store.uri, config.storage), False)
