"""The config of `recap watch`."""

from datetime import date

from pydantic import Field, ValidationInfo, field_validator

from job.config.sections import RunName, Section, StorageSection, Uri, check_not_above


class WatchConfig(Section):
    """`recap watch`: compare the figures of nights with those before them."""

    run: RunName = Field(description="Name of the run in logs and on the page.")
    nights: Uri = Field(
        description="Folder or prefix of the nights. The name of each output has its date, as in "
        "dt=2026-01-31; the last date in a name counts."
    )
    anchors: Uri | None = Field(
        None,
        description="Folder or prefix of anchors: nights over an input that never changes, with "
        "their dates in their names. They show whether the data, the model or the measurement "
        "changed. They may lie below nights. Those of another input than that of the last one are "
        "left out. Name them once the first one is there.",
    )
    alpha: float = Field(
        0.05,
        gt=0,
        le=0.5,
        description="Largest probability of a false alarm, over all figures and any number of "
        "nights.",
    )
    since: date | None = Field(
        None,
        description="First night that counts. Set it after an alarm is settled, or after a change "
        "that was wanted: the comparison begins anew. null is the first night there is.",
    )
    until: date | None = Field(
        None, description="Last night that counts. null is the last night there is."
    )
    leave_out: list[date] = Field(
        default_factory=list,
        description="Nights that do not count, such as those of holidays.",
    )
    expected: date | None = Field(
        None,
        description="Night that must be there, such as '{date}'. Until it is there, the command "
        "waits, and then ends with 75. null compares the nights that there are.",
    )
    wait_minutes: float = Field(
        0,
        ge=0,
        le=1440,
        description="Minutes to wait for the expected night. 0 looks once.",
    )
    storage: StorageSection = StorageSection()

    @field_validator("until")
    @classmethod
    def _until_is_not_before_since(cls, until: date | None, info: ValidationInfo) -> date | None:
        since = info.data.get("since")
        if until is not None and since is not None and until < since:
            raise ValueError(
                f"{until} is before since, {since}, so that no night would count; wanted the same "
                "day or a later one"
            )
        return until

    @field_validator("anchors")
    @classmethod
    def _anchors_leave_nights(cls, anchors: str | None, info: ValidationInfo) -> str | None:
        return check_not_above(anchors, info.data.get("nights"))
