"""Filters: what of the hierarchy is asked for, and what is left out. Pure.

Rosters stay whole, since they say who was there; a filter cuts what is asked below them: a troop that is left out
gets no call, a warrior no list of data groups, a data group and a value no performance data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final, Self
from urllib.parse import quote, unquote

from vendor_assets.errors import ConfigurationError
from vendor_assets.storage.roster import Roster, Troop
from vendor_assets.vendors.base import DataGroup, Leaf, PlannedRequest

TROOPS: Final = "VENDOR_ASSETS_TROOPS"
WARRIORS: Final = "VENDOR_ASSETS_WARRIORS"
DATA_GROUPS: Final = "VENDOR_ASSETS_DATA_GROUPS"
VALUES: Final = "VENDOR_ASSETS_VALUES"
SETTINGS: Final = (TROOPS, WARRIORS, DATA_GROUPS, VALUES)

_NARROWED: Final = " values="
"""Stands in a leaf's key before the values that were asked, where not all were; vendors quote their names."""


@dataclass(frozen=True)
class Filter:
    """Shell patterns over names: those after ``!`` exclude, the others include; without any, all is taken.

    Case counts. ``*`` is any text, ``?`` any character, ``[ab]`` one of some. A comma divides patterns: for one
    in a name stands ``?``.
    """

    setting: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, setting: str, text: str) -> Self:
        """Read patterns divided by commas.

        Raises:
            ConfigurationError: A pattern is empty.
        """
        patterns = [pattern.strip() for pattern in text.split(",")] if text.strip() else []
        for pattern in patterns:
            if not pattern.removeprefix("!").strip():
                message = (
                    f"{setting}={text!r} has an empty pattern; give patterns like web-*,!*-test, "
                    "with ? for a comma in a name"
                )
                raise ConfigurationError(message)
        include = tuple(pattern for pattern in patterns if not pattern.startswith("!"))
        exclude = tuple(pattern[1:].strip() for pattern in patterns if pattern.startswith("!"))
        return cls(setting, include, exclude)

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.include or self.exclude)

    @property
    def text(self) -> str:
        """Its patterns, as they are written in the setting."""
        return ",".join([*self.include, *(f"!{pattern}" for pattern in self.exclude)])

    def takes(self, *names: str | None) -> bool:
        """Whether something known by these names (its id and its name) is asked for."""
        known = [name for name in names if name is not None]

        def matches(patterns: Iterable[str]) -> bool:
            return any(fnmatchcase(name, pattern) for pattern in patterns for name in known)

        return not matches(self.exclude) and (not self.include or matches(self.include))


@dataclass(frozen=True)
class Filters:
    """The filter of each level of the hierarchy."""

    troops: Filter = Filter(TROOPS)
    warriors: Filter = Filter(WARRIORS)
    data_groups: Filter = Filter(DATA_GROUPS)
    values: Filter = Filter(VALUES)

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> Self:
        """Read the settings of the four filters, as :meth:`Filter.parse` does; those that are absent take all."""
        return cls(*(Filter.parse(setting, texts.get(setting, "")) for setting in SETTINGS))

    @property
    def texts(self) -> dict[str, str]:
        """Setting to patterns, of the filters that leave anything out."""
        every = (self.troops, self.warriors, self.data_groups, self.values)
        return {each.setting: each.text for each in every if each}

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return any((self.troops, self.warriors, self.data_groups, self.values))

    def __str__(self) -> str:
        """The filters as a person would set them."""
        return " ".join(f"{setting}={text}" for setting, text in self.texts.items()) or "none"

    def takes_troop(self, troop: Troop) -> bool:
        """Whether a troop is asked for: by its id, its partition key or its name."""
        return self.troops.takes(troop.id, troop.key, troop.name)

    def choose(self, roster: Roster, only: Sequence[str] = ()) -> list[Troop]:
        """The troops of a roster that are asked for: all that the filters take, or those that are named.

        Raises:
            ConfigurationError: A troop that is named is not on the roster, or left out.
        """
        taken = [troop for troop in roster.troops if self.takes_troop(troop)]
        if not only or not roster.troops:
            return taken
        named: dict[str | None, list[Troop]] = {}
        for troop in roster.troops:
            for name in troop.names:
                named.setdefault(name, []).append(troop)
        chosen: dict[str, Troop] = {}
        for wanted in only:
            hits = named.get(wanted)
            if not hits:
                known = sorted({name for troop in roster.troops for name in (str(troop.name), troop.id)})
                near = get_close_matches(wanted, known, 3) or known[:5]
                message = (
                    f"troop {wanted!r} is not on the roster of {roster.day}; {len(roster.troops)} are, "
                    f"like {', '.join(map(repr, near))}"
                )
                raise ConfigurationError(message)
            found = [troop for troop in hits if self.takes_troop(troop)]
            if not found:
                by = f"{self.troops.setting}={self.troops.text}"
                raise ConfigurationError(f"troop {wanted!r} is left out by {by}; change that to harvest it")
            chosen.update((troop.key, troop) for troop in found)
        return list(chosen.values())

    def narrow(self, group: DataGroup) -> DataGroup | None:
        """What of a data group is asked for; None where nothing is."""
        if not self.data_groups.takes(group.name):
            return None
        values = tuple(name for name in group.value_names if self.values.takes(name))
        if len(values) == len(group.value_names):
            return group
        return replace(group, value_names=values, narrowed=True) if values else None


def with_values(planned: PlannedRequest, groups: Mapping[tuple[str, str], DataGroup]) -> PlannedRequest:
    """A request whose leaves say which values they ask for, where not all: so that others can be asked later.

    ``groups`` are by warrior and name.
    """
    leaves = tuple(
        replace(leaf, key=leaf.key + _NARROWED + ",".join(sorted(quote(name, safe="") for name in names)))
        if (group := groups[leaf.warrior_id, leaf.data_group]).narrowed and (names := group.value_names)
        else leaf
        for leaf in planned.leaves
    )
    return replace(planned, leaves=leaves)


def values_known(leaves: Iterable[str]) -> dict[str, set[str]]:
    """The values that are known of leaves of which not all were asked, by the leaf's key without them."""
    known: dict[str, set[str]] = {}
    for leaf in leaves:
        key, narrowed, names = leaf.rpartition(_NARROWED)
        if narrowed:
            known.setdefault(key, set()).update(unquote(name) for name in names.split(","))
    return known


def still_to_ask(
    groups: Sequence[DataGroup],
    leaves: Iterable[Leaf],
    known: set[str] | frozenset[str],
    values: Mapping[str, set[str]],
) -> list[DataGroup]:
    """What of a warrior's data groups has not been answered: whole groups, or values that no earlier filter took.

    Args:
        leaves: All leaves of the warrior, their keys as the vendor builds them.
        known: Keys of the leaves that are answered.
        values: :func:`values_known` of these.
    """
    missing: dict[str, set[str]] = {}
    wanted = {group.name: set(group.value_names) for group in groups}
    for leaf in leaves:
        if leaf.key not in known:
            left = wanted[leaf.data_group] - values.get(leaf.key, set())
            missing.setdefault(leaf.data_group, set()).update(left)
    found: list[DataGroup] = []
    for group in groups:
        names = tuple(name for name in group.value_names if name in missing.get(group.name, ()))
        if len(names) == len(group.value_names) and group.name in missing:
            found.append(group)
        elif names:
            found.append(replace(group, value_names=names, narrowed=True))
    return found
