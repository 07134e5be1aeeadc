"""What workers have and what calls need: names with numbers, such as {"gpu": 1}.

A launcher says what each of its workers has. The workers of one launcher count their things
through: with {"gpu": 2} the first has the slots 0 and 1, the second 2 and 3. Slots of "gpu" are
devices: each worker sees its own ones only, by the environment variables that the libraries of the
three makers go by.
"""

from __future__ import annotations

from collections.abc import Mapping

from sleighexec.hints import Any

Needs = tuple[tuple[str, int], ...]  # sorted by name; empty: nothing
Slots = dict[str, list[int]]

GPU = "gpu"  # the name whose slots are devices
# A variable, and what stands before the numbers in it.
DEVICES = (
    ("CUDA_VISIBLE_DEVICES", ""),
    ("ROCR_VISIBLE_DEVICES", ""),
    ("ONEAPI_DEVICE_SELECTOR", "level_zero:"),
)


def needs_of(resources: Mapping[str, int] | None) -> Needs:
    """What was asked for, if it is names with numbers.

    Raises:
        TypeError, ValueError: It is not.
    """
    if resources is None:
        return ()
    if not isinstance(resources, Mapping):
        raise TypeError(f'resources must be a mapping such as {{"gpu": 1}}, not {resources!r}')
    for name, count in resources.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a resource must be a str, not {name!r}")
        if not isinstance(count, int) or isinstance(count, bool):
            raise TypeError(f"resources[{name!r}] must be an integer, not {count!r}")
        if count < 0:
            raise ValueError(f"resources[{name!r}] must not be negative")
    return tuple(sorted((name, count) for name, count in resources.items() if count))


def offer_of(launcher: Any) -> Mapping[str, int]:
    """What each worker of a launcher has."""
    return getattr(launcher, "resources", None) or {}


def satisfies(offer: Mapping[str, int], needs: Needs) -> bool:
    """Whether who has `offer` can run what needs `needs`."""
    return all(offer.get(name, 0) >= count for name, count in needs)


def slots(offer: Mapping[str, int], index: int) -> Slots:
    """The slots of worker number `index` of a launcher."""
    return {name: [*range(index * n, index * n + n)] for name, n in offer.items() if n}


def visible(slots: Slots, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which a worker sees its own devices.

    Where one is set already, by a batch system or the user, slots are places in that list.

    Raises:
        ValueError: That list is too short.
    """
    numbers = slots.get(GPU)
    if not numbers:
        return {}
    variables = {}
    for name, prefix in DEVICES:
        given = environ.get(name, "")
        if not given:
            variables[name] = prefix + ",".join(map(str, numbers))
            continue
        head, colon, tail = given.rpartition(":")
        devices = tail.split(",")
        if numbers[-1] >= len(devices):
            raise ValueError(
                f"this worker is to have the GPUs {numbers} of those in {name}={given!r}, which "
                "are too few: say less in resources= of its launcher, or have fewer workers there"
            )
        variables[name] = head + colon + ",".join(devices[number] for number in numbers)
    return variables


def shown(resources: Mapping[str, int] | Needs) -> str:
    """For messages."""
    return repr(dict(resources))
