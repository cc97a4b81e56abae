"""`recap watch`: read the manifests of nights, judge their figures, report, alarm.

1. `nights`: the figures of each night, and those of the anchors, once the expected one is there;
2. `languages`: the share of other languages than that of the first night;
3. `judge`: a test for each figure (`martingale`), and the cause of a change (`causes`);
4. `screen` and `page`: the verdict for people and programs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from job.config.watch_config import WatchConfig
from job.errors import AlarmError, DamagedError, MissingError, RetryError
from job.printable import number_of
from job.storage.open import open_store
from job.summarization.nights_before import inside_anchors
from job.telemetry import event, log_metrics, warn
from job.watch.judge import Verdict, Watched, judge, since
from job.watch.languages import compare_languages
from job.watch.nights import Nights, WatchedNight, day_of, is_there, read_nights

SECONDS_BETWEEN_LOOKS = 60
MAX_NAMED = 3  # of nights that do not count, in a warning


def wait_for_expected(config: WatchConfig, sleep: Callable[[float], None] = time.sleep) -> None:
    """Block until the expected night is there, if there is one.

    Raise RetryError if it is not there after `wait_minutes`.
    """
    if config.expected is None:
        return
    looks = 1 + int(config.wait_minutes * 60 / SECONDS_BETWEEN_LOOKS)
    for look in range(looks):
        if look:
            sleep(SECONDS_BETWEEN_LOOKS)
        if is_there(config.expected, config.nights, config.storage, config.anchors):
            return
        if not look and looks > 1:
            event("waiting for the night", night=str(config.expected), minutes=config.wait_minutes)
    raise RetryError(
        f"expected: no night of {config.expected} is below {config.nights} after "
        f"{config.wait_minutes:g} minutes; run this again after the night"
    )


def judge_nights(config: WatchConfig) -> Verdict:
    """Return the verdict on the nights of the config.

    Raise MissingError if there is no night with figures, DamagedError if the expected one has none,
    RetryError if it is being replaced.
    Anchors that are not there are left to `require_anchors`: they must hide no alarm.
    """
    found = read_nights(config.nights, config.storage, config.anchors)
    _warn_of_what_does_not_count(found)
    _warn_of_anchors(config, found)
    nights = since(found.nights, config.since, config.until, config.leave_out)
    if not nights:
        raise _no_night(config, found.nights)
    _check_expected(config, found, nights)
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)  # of the time zone that is first
    if nights[-1].day > tomorrow:
        warn(
            "the last night is of the future, so later ones come before it: correct its name, or "
            "name it in leave_out",
            night=nights[-1].uri,
        )
    verdict = judge(*compare_languages(nights, _anchors(config)), config.alpha)
    between = since(found.nights, nights[0].day, nights[-1].day, ())
    return replace(verdict, left_out=len(between) - len(nights))


def report(config: WatchConfig, verdict: Verdict) -> None:
    """Log the verdict and its metrics."""
    alarms = verdict.alarms
    for watched in alarms:
        warn("nights changed", **_fields(watched))
    metrics = {
        "WatchedNights": (float(len(verdict.nights)), "Count"),
        "WatchAlarms": (float(len(alarms)), "Count"),
    }
    log_metrics("watch", metrics, run=config.run, last_night=verdict.nights[-1].day.isoformat())


def raise_alarm(config: WatchConfig, verdict: Verdict) -> None:
    """Raise AlarmError if a figure changed."""
    if verdict.alarms:
        changed = [f"{watched.figure.title} ({_cause(watched)})" for watched in verdict.alarms]
        titles = ", ".join(changed)
        raise AlarmError(
            f"the nights below {config.nights} changed: {titles}. Look at the summaries of these "
            "nights; once it is settled, set `since` to the first night of the new state"
        )


def require_anchors(config: WatchConfig, verdict: Verdict) -> None:
    """Raise MissingError if the config names anchors and none is there.

    Without them no cause of a later alarm is known, and nobody would look before that day. Anchors
    after `until` are there, although the verdict has none.
    """
    if config.anchors is None or verdict.anchors:
        return
    if not read_nights(config.anchors, config.storage).nights:
        raise MissingError(
            f"anchors: no night with figures is below {config.anchors}. The nights were compared, "
            "and no alarm was due. Correct anchors, or run the first one (docs/watching.md, "
            "Anchors), or remove the key until then"
        )


def _no_night(config: WatchConfig, there: Sequence[WatchedNight]) -> MissingError:
    """Return the error for a watch of which no night counts, by what is `there`."""
    if there:
        count = number_of(len(there), "night is", "nights are")
        return MissingError(
            f"nights: {count} below {config.nights}, from {there[0].day} to {there[-1].day}, and "
            "none counts; correct since, until or leave_out"
        )
    beside = f" and not below anchors, {config.anchors}" if config.anchors else ""
    wanted = "wanted outputs of recap summarize with a date in their names, as in dt=2026-01-31"
    if day_of(config.nights.rstrip("/").rpartition("/")[2]) is not None:
        wanted = "its own name has a date, as one night has: name the folder above"
    return MissingError(f"nights: no night with figures is below {config.nights}{beside}; {wanted}")


def _warn_of_what_does_not_count(found: Nights) -> None:
    if found.without_figures:
        warn(
            "nights without figures do not count: their manifests are damaged, or of a version of "
            "recap before the block quality",
            count=len(found.without_figures),
            first=found.without_figures[:MAX_NAMED],
        )
    if found.being_replaced:
        warn(
            "nights that are being written anew do not count",
            count=len(found.being_replaced),
            first=found.being_replaced[:MAX_NAMED],
        )
    if found.of_the_same_day:
        warn(
            "of several nights of one day only the last by name counts: watch each kind of night "
            "by a config of its own, with its own prefix in nights",
            count=len(found.of_the_same_day),
            first=found.of_the_same_day[:MAX_NAMED],
        )


def _warn_of_anchors(config: WatchConfig, found: Nights) -> None:
    """Warn if nights lie in a folder that has the name of anchors, and no key says so."""
    above = open_store(config.nights, config.storage).uri
    uris = [*(night.uri for night in found.nights), *found.of_the_same_day]
    inside = inside_anchors(above, uris)
    if inside:
        warn(
            "outputs below a folder `anchors` count as nights: if they are anchors, name their "
            "folder in the key anchors",
            count=len(inside),
            first=inside[0],
        )


def _check_expected(config: WatchConfig, found: Nights, nights: Sequence[WatchedNight]) -> None:
    """Raise DamagedError if the expected night cannot be compared, RetryError if not yet."""
    expected = config.expected
    if expected is None or expected in config.leave_out:
        return
    if any(night.day == expected for night in nights):
        return
    is_before = config.since is not None and expected < config.since
    is_after = config.until is not None and expected > config.until
    if is_before or is_after:
        return
    if expected in map(day_of, found.without_figures):
        raise DamagedError(
            f"expected: the night of {expected} below {config.nights} has no figures: its manifest "
            "is damaged, or of a version of recap before the block quality; run the night again, "
            "or name it in leave_out"
        )
    raise RetryError(
        f"expected: the night of {expected} below {config.nights} is being written anew; run this "
        "again after it"
    )


def _anchors(config: WatchConfig) -> Sequence[WatchedNight]:
    """Return the anchors until the last night, of the input of the last one."""
    if config.anchors is None:
        return ()
    anchors = since(read_nights(config.anchors, config.storage).nights, None, config.until, ())
    if not anchors:
        return ()
    same = [anchor for anchor in anchors if anchor.input == anchors[-1].input]
    if len(same) < len(anchors):
        event("anchors of another input are left out", anchors=len(anchors) - len(same))
    return same


def _fields(watched: Watched) -> dict[str, object]:
    fields: dict[str, object] = {
        "figure": watched.figure.name,
        "alarmed": str(watched.alarmed),
        "cause": _cause(watched),
    }
    if watched.change is not None:
        fields |= {"since": str(watched.change.since), "size": round(watched.change.size, 6)}
    if watched.attribution is not None:
        fields["why"] = watched.attribution.why
    return fields


def _cause(watched: Watched) -> str:
    return watched.attribution.cause if watched.attribution else "unknown"
