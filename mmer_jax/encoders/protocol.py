"""What an encoder is. Nothing inherits from these classes: mypy checks that each of ENCODERS is one."""

from typing import Protocol, runtime_checkable

from jax import Array

STAGES = ('stem', 'stage1', 'stage2', 'stage3', 'stage4')


@runtime_checkable
class Encoder(Protocol):
    """A linen module for one modality.

    Its fields are its config. What stands at padded steps changes no output, and no row changes another one.
    """

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the methods that make it up, first to last; () where it is one piece, and not a StagedEncoder."""

    def __call__(self, x: Array, mask: Array, /, *, train: bool) -> tuple[Array, Array]:
        """x (B, T, ...) and its mask (B, T) bool -> features (B, T', ..., D) and theirs (B, T')."""

    def pool(self, features: Array, mask: Array, /, *, train: bool) -> Array:
        """What a call gives -> one vector per row (B, D), for a head."""


@runtime_checkable
class StagedEncoder(Encoder, Protocol):
    """An encoder between whose stages fusion blocks may stand (MMTM, MSAF).

    A stage is a method (x, mask, train=...) -> x. `prepare` and then all stages give the features of a call; a stage
    may make fewer steps of T, by a whole factor.
    """

    @property
    def masks_steps(self) -> bool:
        """Whether stages take the mask of the valid steps (B, T) of their input; else that of the real rows (B,)."""

    def prepare(self, x: Array, mask: Array, /) -> tuple[Array, Array]:
        """What comes before the first stage: checks, scaling, padding; -> its input and the mask (B, T) of that."""
