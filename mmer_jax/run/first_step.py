"""The time to a run's first step, by parts: what a user waits for before anything is learnt."""

import dataclasses
import time

PARTS = ('imports', 'data', 'initialisation', 'compilation', 'step')


@dataclasses.dataclass
class FirstStep:
    """Seconds of each part, of this process; together all that passes until the first step has ended.

    `imports` is known to the command only; a library's user has 0. XLA compiles beside initialisation: compilation is
    tracing, lowering and what was waited for after initialisation. data is all else: opening, checking, statistics.
    """

    imports: float = 0.0
    data: float = 0.0
    initialisation: float = 0.0
    compilation: float = 0.0
    step: float = 0.0
    done: bool = False
    _begun: float = dataclasses.field(default_factory=time.perf_counter, init=False, repr=False)

    def begin(self) -> None:
        """What is no import begins; where nobody says so, as in a search, it began when this was made."""
        if not self.done:
            self._begun = time.perf_counter()

    def end(self, seconds: float, waited: float) -> None:
        """The first step has ended after so many seconds, in so many of which a program was waited for."""
        self.compilation, self.step, self.done = self.compilation + waited, seconds - waited, True
        passed = time.perf_counter() - self._begun
        self.data = passed - self.initialisation - self.compilation - self.step

    def row(self, step: int) -> dict[str, float]:
        """A line of timing.jsonl."""
        return {'first_step': step, **{name: round(getattr(self, name), 3) for name in PARTS}}

    def line(self) -> str:
        """'first step after 8.2 s: imports 2.3, ...'; '' where no step was taken."""
        if not self.done:
            return ''
        seconds = {name: getattr(self, name) for name in PARTS}
        listed = ', '.join(f'{name} {value:.1f}' for name, value in seconds.items())
        return f'first step after {sum(seconds.values()):.1f} s: {listed}'


class Stopwatch:
    """with Stopwatch() as watch: ...; watch.seconds is then how long it took."""

    seconds = 0.0

    def __enter__(self) -> 'Stopwatch':
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begun


LATEST = FirstStep()  # of this process; the first run in it fills it
