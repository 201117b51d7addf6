"""The supervisor: owns the listening sockets, starts the workers, replaces those that die, and stops them.

A start has two phases, so that it happens as a whole or not at all: every worker builds what it needs and says
so, and the offload prepares its generation meanwhile; then the sockets listen, all workers are told to serve, and
the offload goes live. Before that, clients are refused.

No parsing of anything that came over the network: this process keeps the privileges.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import rauta
from rauta.proxy.http2.library import library
from rauta.routing.defaults import DRAIN_IDLE, DRAIN_TIMEOUT
from rauta.routing.errors import RautaError
from rauta.routing.model import Configuration
from rauta.runtime import agents, segment, sockets
from rauta.runtime.agents import Agents
from rauta.runtime.backend_credentials import read_backend_credentials
from rauta.runtime.backoff import Backoff
from rauta.runtime.control import (
    AgentSetup,
    Command,
    Health,
    Names,
    Result,
    Setup,
    Status,
    encode_setup,
)
from rauta.runtime.credentials import environment_without, facts_of_all, lists_of_all, read_credentials
from rauta.runtime.errors import EXIT_CONFIGURATION, EXIT_FAILURE, EXIT_OK, StartError
from rauta.runtime.gate import Gate
from rauta.runtime.hearts import LOOK_INTERVAL, Hearts
from rauta.runtime.host import Host, Provenance
from rauta.runtime.log import EventLog
from rauta.runtime.process import Stage, WorkerError, WorkerProcess
from rauta.runtime.program import PROGRAM
from rauta.runtime.readings import Readings
from rauta.runtime.revision import Reloaded, Revision, Slot
from rauta.runtime.takeover import Predecessor, Successors, gifts_of
from rauta.runtime.tasks import Tasks
from rauta.runtime.upgrade import Upgrade

if TYPE_CHECKING:
    from rauta.offload import Counters
    from rauta.routing.settings import AdminSettings
    from rauta.runtime.offloading import Offloading

START_TIMEOUT: Final = 60.0  # until a worker is ready; 10,000 routes with regexes take a few seconds on a slow core
KILL_GRACE: Final = 5.0  # beyond the drain, until SIGKILL: closing tables and flushing logs takes milliseconds
HASTY_IDLE: Final = 0.5  # how long idle connections are kept when a person has pressed Ctrl-C, or a program ends
_HASTY: Final = frozenset({"SIGINT", PROGRAM})
HURRY_GRACE: Final = 1.0  # the same after a second signal, when somebody is waiting


def worker_count(configuration: Configuration) -> int:
    """As configured, or one per CPU that this process may use."""
    return configuration.workers or min(len(os.sched_getaffinity(0)), 256)


class Supervisor:
    """Runs one configuration until a signal ends it.

    `offloading` is stopped when `run` ends, and has served no other supervisor. The sockets of `predecessor` are taken
    over. `on_ready` is called once, when all workers serve and the offload is live, and gets their pids.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        events: EventLog,
        host: Host | None = None,
        provenance: Provenance | None = None,
        offloading: Offloading | None = None,
        predecessor: Predecessor | None = None,
        on_ready: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        self._configuration = configuration
        self._generation = 1  # the last number that was given away; the offload is told it
        self._live = 1  # the number of the generation that is served
        self._offloading = offloading
        self._events = events
        self._on_ready = on_ready
        self._provenance = Provenance() if provenance is None else provenance
        self._predecessor = predecessor
        self._host = Host() if host is None else host
        known, place = self._provenance.credentials, self._provenance.place
        self._credentials = known or read_credentials(configuration.listeners, place)
        self._backend_credentials = read_backend_credentials(configuration.services, place)
        self._log = self._host.log
        passed = {address: [*socks] for address, socks in self._host.lent.items()}
        for address, socks in ({} if predecessor is None else predecessor.listeners).items():
            passed.setdefault(address, []).extend(socks)
        groups = sockets.bind(
            configuration.listeners,
            worker_count(configuration),
            place=place,
            held=passed.keys(),
            passed=passed,
        )
        self._slots = [Slot(index=index, sockets=group) for index, group in enumerate(groups)]
        self._workers: set[WorkerProcess] = set()
        self._program = self._host.program
        self._memory = segment.create(len(self._slots)) if self._program is None else [*self._program.memory]
        self._started = time.time()
        self._restarts = 0
        self._draining = self._ready = False
        self._drain_timeout: float | None = None  # instead of the configuration's
        self._handed_over = False  # another gateway serves on these sockets
        self._reloads: dict[str, Any] = {"succeeded": 0, "failed": 0, "last": None}

    async def run(self) -> int:
        """Start, serve, and stop on SIGTERM or SIGINT; a second one stops at once. The exit status.

        Raises StartError.
        """
        self._loop = asyncio.get_running_loop()
        self._watchers = Tasks(self._loop)
        self._keepers = Tasks(self._loop)
        self._helpers = Tasks(self._loop)
        self._stop: asyncio.Future[str] = self._loop.create_future()
        self._hurry = asyncio.Event()
        self._gate = Gate()
        self._agents = Agents(
            self._memory,
            self._events,
            identity=self._host.identity,
            on_news=self._on_news,
            on_command=self._on_command,
            on_look=self._on_look,
        )
        if self._offloading is not None:
            self._offloading.on_change = self._tell_status
            self._readings = Readings(self._offloading, self._helpers, self._agents.show)
        self._successors = Successors(
            self._events,
            self._gate,
            give=lambda: gifts_of([slot.sockets for slot in self._slots], self._agents.admin),
            on_taken=self._on_taken,
        )
        self._wanted = asyncio.Event()  # a reload, by signal
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._wanted.set)
        self._loop.add_signal_handler(signal.SIGUSR1, self._reopen)
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_upgrade)
        self._upgrade = Upgrade(self._events, self._host.notifier.environment)
        try:
            if self._program is not None:
                await self._program.open(self)
            if await self._unless_stopped(self._start(), name="start"):
                for slot in self._slots:
                    self._keepers.start(self._keep(slot), name=f"keeper of slot {slot.index}")
                self._helpers.start(self._agents.keep(), name="keeper of the agent")
                self._helpers.start(self._watch_hearts(), name="heartbeats")
                if self._provenance.watch is not None:
                    self._keepers.start(self._provenance.watch(self.reload), name="watch")
                self._ready = True
                self._tell_status()
                await self._unless_stopped(self._reload_on_signal(), name="serve")
            await self._drain(self._stop.result())
            return EXIT_OK
        finally:
            await self._end()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.done():
            self._hurry.set()
        else:
            self._stop.set_result(number.name)

    async def _unless_stopped(self, work: Awaitable[None], *, name: str) -> bool:
        """Wait for `work`; False if a signal came first. Raises what `work` or a task of this supervisor raises."""

        async def run() -> None:
            await work

        task = self._keepers.start(run(), name=name)
        crashes = (self._keepers.crashed, self._watchers.crashed, self._helpers.crashed)
        first: list[asyncio.Future[Any]] = [task, self._stop, *crashes]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        for crash in crashes:
            if crash.done():
                crash.result()
        return not self._stop.done()

    # --- start ------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        before = self._predecessor
        settings = self._configuration.admin
        admin = self._agents.bind(settings, passed=None if before is None else before.admin)
        self._agents.configure(self._agent_setup(agents.token_of(self._configuration)), admin)
        self._successors.bind(self._meeting, before)
        workers = []
        for slot in self._slots:
            try:
                slot.worker = await self._spawn(slot)
            except OSError as error:
                raise StartError(f"cannot start a worker: {error}", code=EXIT_FAILURE) from error
            workers.append(slot.worker)
        if self._offloading is not None:
            await self._offloading.prepare(self._generation)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                for worker in workers:
                    await worker.reach(Stage.PREPARED)
                sockets.listen([slot.sockets for slot in self._slots])
                for worker in workers:
                    worker.commit()
                for worker in workers:
                    await worker.reach(Stage.READY)
        except WorkerError as error:
            text = error.located(self._configuration.routes, self._provenance.place)
            raise StartError(text, code=EXIT_CONFIGURATION if error.told else EXIT_FAILURE) from error
        except TimeoutError:
            raise StartError(f"the workers were not ready within {START_TIMEOUT:g} s", code=EXIT_FAILURE) from None
        if self._offloading is not None:
            await self._offloading.commit()
        if before is not None:
            await self._take_over(before)
        self._successors.open(self._helpers)
        self._host.notifier.ready(f"{len(workers)} workers serve {self._provenance.name or 'their configuration'}")
        if self._on_ready is not None:
            self._on_ready([worker.pid for worker in workers])

    async def _take_over(self, before: Predecessor) -> None:
        """All serve on its sockets: it can go. Raises StartError: it goes on."""
        there = await before.finish()
        before.settle([listener.address for listener in self._configuration.listeners], self._agents.admin)
        ending = "it finishes what is in flight" if there else "it is gone already"
        text = f"the sockets of pid {before.pid} (rauta {before.version}) are taken over; {ending}"
        self._events.info("taken_over", text, predecessor=before.pid, version=before.version)

    async def _spawn(self, slot: Slot) -> WorkerProcess:
        listeners = self._configuration.listeners
        fds = tuple(tuple(sock.fileno() for sock in slot.sockets[listener.address]) for listener in listeners)
        log = self._log.fd
        others = () if log is None else (log,)
        memory, environment = self._memory[slot.index], environment_without(self._configuration)
        worker = WorkerProcess(slot.index, fds, memory, others, self._loop, self._host.identity, environment)
        self._workers.add(worker)
        self._watchers.start(self._watch(worker), name=f"watcher of worker {worker.pid}")
        setup = Setup(
            configuration=self._configuration,
            access_log=log,
            credentials=self._credentials,
            backend_credentials=self._backend_credentials,
        )
        await worker.send_setup(encode_setup(setup))
        return worker

    async def _watch(self, worker: WorkerProcess) -> None:
        await worker.watch()
        self._workers.discard(worker)

    # --- serve ------------------------------------------------------------------------------------------

    async def _keep(self, slot: Slot) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(await self._delay(slot.worker, backoff))
            async with self._gate.restart():
                await self._replace(slot)

    async def _replace(self, slot: Slot) -> None:
        try:
            slot.worker = await self._spawn(slot)
        except OSError as error:
            slot.worker = None
            self._events.error("worker_not_started", f"worker {slot.index}: cannot start: {error}", worker=slot.index)
        else:
            await self._bring_up(slot.worker)

    async def _delay(self, worker: WorkerProcess | None, backoff: Backoff) -> float:
        """Wait until a slot needs a new worker; the seconds to wait on. None: the last one could not be started."""
        if worker is None:
            return backoff.after(0.0)
        await worker.reach(Stage.LEAVING)
        self._tell_end(worker)
        if worker.stage is Stage.GONE:
            return backoff.after(self._loop.time() - worker.started_at)
        self._watchers.start(self._see_off(worker), name=f"end of worker {worker.pid}")
        return 0.0  # it was told to leave, which is no failure

    async def _see_off(self, worker: WorkerProcess) -> None:
        """A worker that was told to leave gets no longer than one that the supervisor tells."""
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT + KILL_GRACE):
                await worker.reach(Stage.GONE)
        except TimeoutError:
            worker.kill()

    async def _bring_up(self, worker: WorkerProcess) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await worker.reach(Stage.PREPARED)
                worker.commit()
                await worker.reach(Stage.READY)
        except TimeoutError:
            worker.kill()
        except WorkerError:
            return  # it is gone, which its keeper sees and tells
        else:
            for news in self._agents.news:
                worker.tell(news)
            self._restarts += 1
            self._tell_status()
            text = f"worker {worker.slot} is replaced (pid {worker.pid})"
            self._events.info("worker_ready", text, worker=worker.slot, worker_pid=worker.pid)

    def _tell_end(self, worker: WorkerProcess) -> None:
        name = f"worker {worker.slot} (pid {worker.pid})"
        fields = {"worker": worker.slot, "worker_pid": worker.pid}
        if worker.stage is Stage.LEAVING:
            self._events.info("worker_leaving", f"{name} was told to leave; its successor starts", **fields)
        elif worker.failure is not None:
            self._events.error("worker_failed", f"{name}: {worker.failure}", **fields)
        else:
            self._events.error("worker_died", f"{name} died: {worker.ending}", ending=worker.ending, **fields)

    # --- reload -----------------------------------------------------------------------------------------

    async def _reload_on_signal(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self.reload("SIGHUP")

    async def reload(self, cause: str, load: Callable[[], Configuration] | None = None) -> Reloaded:
        """Read the configuration anew, by `load` or from where it came, and serve it everywhere, or change nothing.
        One at a time, in order."""
        load = load or self._provenance.load
        async with self._gate.reload():
            self._host.notifier.reloading()
            try:
                if load is None:
                    raise StartError("there is no configuration file to read again")
                configuration = await asyncio.to_thread(load)
                warnings = self._provenance.warnings()
                serving = [slot.worker for slot in self._slots if slot.worker and slot.worker.stage is Stage.READY]
                revision = Revision(
                    self._generation + 1, self._configuration, configuration, slots=self._slots, log=self._log
                )
                self._generation += 1
                token = agents.token_of(configuration)
                admin = self._agents.bind(configuration.admin)
                try:
                    await revision.prepare(serving, self._offloading, place=self._provenance.place)
                except BaseException:
                    self._agents.unbind(admin)
                    raise
                self._configuration = configuration
                self._credentials, self._backend_credentials = revision.credentials, revision.backend_credentials
                self._live = self._generation
                await revision.commit(serving, self._offloading)
                self._agents.configure(self._agent_setup(token), admin)
                await self._successors.move(self._meeting, self._helpers)
            except Exception as error:  # noqa: BLE001 - a defect, ours or a plugin's, must not end a gateway that serves
                if not isinstance(error, StartError | WorkerError):
                    self._loop.call_exception_handler({"message": "a reload crashed", "exception": error})
                self._events.error("reload_failed", f"{cause}: the old configuration goes on: {error}", cause=cause)
                text = str(error) if isinstance(error, RautaError) else repr(error)
                return self._reloaded(Reloaded(ok=False, text=text))
        text = f"{cause}: generation {self._generation} is live"
        self._events.info("reloaded", text, cause=cause, generation=self._generation, notes=revision.notes)
        return self._reloaded(Reloaded(ok=True, text="; ".join([text, *revision.notes]), warnings=warnings))

    def _reloaded(self, result: Reloaded) -> Reloaded:
        self._reloads["succeeded" if result.ok else "failed"] += 1
        self._reloads["last"] = {"time": time.time(), "ok": result.ok, "text": result.text}
        self._tell_status()
        self._host.notifier.ready(result.text if result.ok else f"the old configuration goes on: {result.text}")
        return result

    def _agent_setup(self, token: str | None) -> AgentSetup:
        """For what is live."""
        return AgentSetup(
            generation=self._live,
            configuration=self._configuration,
            token=token,
            certificates={} if self._configuration.admin is None else facts_of_all(self._credentials),
            revocation_lists={} if self._configuration.admin is None else lists_of_all(self._credentials),
            backend_credentials=self._backend_credentials,
        )

    def _reopen(self) -> None:
        """SIGUSR1: the access log has been renamed."""
        self._keepers.start(self._reopen_log(), name="reopen the access log")

    async def _reopen_log(self) -> tuple[bool, str]:
        async with self._gate.reload():
            try:
                fd = self._log.reopened()
                for worker in self._workers:
                    if fd is not None and worker.stage is Stage.READY:
                        worker.reopen(fd)
            except (OSError, WorkerError) as error:
                self._events.error("reopen_failed", f"access log: {error}")
                return False, f"access log: {error}"
        self._events.info("reopened", "the access log is open anew")
        return True, "the access log is open anew"

    # --- the agent ---------------------------------------------------------------------------------------

    def _on_news(self, news: Health | Names) -> None:
        if isinstance(news, Health):
            if self._offloading is not None:
                self._offloading.health(news)
            if self._program is not None:
                self._program.tell(news)
        for worker in self._workers:
            if worker.stage is Stage.READY:
                worker.tell(news)

    def _on_command(self, command: Command) -> None:
        self._helpers.start(self._obey(command), name=f"command {command.name}")

    def _on_look(self) -> None:
        if self._offloading is not None:
            self._readings.wanted()

    async def counters(self) -> Counters | None:
        """What the offload has counted; None: there is none."""
        return None if self._offloading is None else await self._offloading.counters()

    async def _obey(self, command: Command) -> None:
        if command.name == "reload":
            reloaded = await self.reload("admin")
            result = Result(command.number, reloaded.ok, reloaded.text, [*reloaded.warnings])
        elif command.name == "reopen":
            result = Result(command.number, *await self._reopen_log())
        elif command.name == "detach":
            result = Result(command.number, *await self._detach())
        elif command.name == "drain":
            result = Result(command.number, True, "the gateway finishes what is in flight and stops")
        else:
            result = Result(command.number, False, f"there is no command {command.name!r}")
        self._agents.answer(result)
        if command.name == "drain" and not self._stop.done():
            self._stop.set_result("admin")

    async def _detach(self) -> tuple[bool, str]:
        if self._offloading is None:
            return True, "no kernel offload"
        async with self._gate.reload():  # a generation that is half-way goes live first
            return await self._offloading.detach()

    def _tell_status(self) -> None:
        workers = [
            {"slot": slot.index, "pid": slot.worker.pid, "stage": slot.worker.stage.name.lower()}
            for slot in self._slots
            if slot.worker is not None
        ]
        status = {
            "version": rauta.__version__,
            "http2": library(),
            "source": self._provenance.name,
            "started": self._started,
            "generation": self._live,
            "ready": self._ready,
            "draining": self._draining,
            "workers": workers,
            "restarts": self._restarts,
            "offload": None if self._offloading is None else self._offloading.status(),
            "reloads": self._reloads,
        }
        self._agents.tell(status)
        if self._program is not None:
            self._program.tell(Status(status))

    async def _watch_hearts(self) -> None:
        hearts = Hearts(self._memory, time.monotonic())
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            serving = {slot.index: slot.worker for slot in self._slots if slot.worker}
            serving = {index: worker for index, worker in serving.items() if worker.stage is Stage.READY}
            started = {index: worker.started_at for index, worker in serving.items()}
            for index, seconds in hearts.silent(time.monotonic(), started).items():
                pid = serving[index].pid
                text = f"worker {index} (pid {pid}) has not moved for {seconds:.0f} s: it is killed"
                self._events.error("worker_hung", text, worker=index, worker_pid=pid)
                serving[index].kill()

    # --- stop -------------------------------------------------------------------------------------------

    @property
    def _meeting(self) -> AdminSettings | None:
        """Where successors find this gateway; None: nowhere, as if a program has it."""
        return self._configuration.admin if self._program is None else None

    def _on_upgrade(self) -> None:
        """SIGUSR2: what is installed now is to take over."""
        if self._meeting is None:
            text = "gateways meet beside the admin socket: without `admin: {}` in the file there is no takeover"
            self._events.error("upgrade_failed", text)
        else:
            self._helpers.start(self._upgrade.run(), name="upgrade")

    def _on_taken(self, pid: int) -> None:
        self._handed_over = True
        self._host.notifier.main_process(pid)
        self._events.info("handed_over", f"pid {pid} serves on the sockets of this gateway", successor=pid)
        if not self._stop.done():
            self._stop.set_result("takeover")

    def drain(self, cause: str, timeout: float | None = None) -> None:
        """Stop, as by SIGTERM; with `timeout`, within that many seconds and without the configuration's delay. Nothing,
        if it is stopping already, but 0 always ends it at once."""
        if not self._stop.done():
            self._drain_timeout = timeout
            self._stop.set_result(cause)
        if timeout == 0:
            self._hurry.set()

    async def _drain(self, cause: str) -> None:
        self._draining = True
        await self._successors.close(file=not self._handed_over)
        if self._handed_over:
            await self._agents.stop(files=False)
        else:
            self._tell_status()  # /readyz fails from here on
            self._host.notifier.stopping(cause)
        delay, seconds = self._configuration.shutdown.delay, self._configuration.shutdown.timeout
        if self._drain_timeout is not None:
            delay, seconds = 0.0, self._drain_timeout
        self._events.info("draining", f"{cause}: finishing what is in flight, {seconds:g} s at most", signal=cause)
        if delay and not self._handed_over:
            await self._ended_within(delay, hurry=self._hurry)
        await self._keepers.cancel()
        workers = [*self._workers]
        for worker in workers:
            worker.drain(seconds, HASTY_IDLE if cause in _HASTY else DRAIN_IDLE)
        # The workers close theirs too: from then on clients are refused, instead of waiting in a queue for nothing.
        sockets.close([slot.sockets for slot in self._slots], files=not self._handed_over)
        if not await self._ended_within(seconds + KILL_GRACE, hurry=self._hurry):
            for worker in self._workers:
                worker.drain(0)
            await self._ended_within(HURRY_GRACE)
        unfinished = [worker for worker in workers if not worker.complete and worker.was_ready]
        if unfinished:
            text = f"stopped; requests were cut off in {len(unfinished)} of {len(workers)} workers"
            self._events.warning("stopped", text, complete=False)
        else:
            self._events.info("stopped", "stopped", complete=True)
        if self._program is not None:
            await self._program.drained(complete=not unfinished)

    async def _ended_within(self, seconds: float, *, hurry: asyncio.Event | None = None) -> bool:
        """Wait until all workers are gone; False if time is up or somebody is in a hurry."""
        tasks = Tasks(self._loop)
        ended = tasks.start(self._all_gone(), name="wait for the workers")
        impatient = tasks.start(hurry.wait(), name="wait for a second signal") if hurry is not None else ended
        await asyncio.wait({ended, impatient}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        done = ended.done()
        await tasks.cancel()
        return done

    async def _all_gone(self) -> None:
        for worker in [*self._workers]:
            await worker.reach(Stage.GONE)

    async def _end(self) -> None:
        """Whatever happened: no worker stays, and nothing in the kernel."""
        await self._keepers.cancel()
        for worker in self._workers:
            worker.kill()
        await self._all_gone()
        await self._watchers.cancel()
        await self._successors.close(file=not self._handed_over)
        await self._agents.stop(files=not self._handed_over)
        await self._helpers.cancel()
        if self._program is not None:
            await self._program.close()
        segment.close(self._memory)
        sockets.close([slot.sockets for slot in self._slots], files=not self._handed_over)
        if self._offloading is not None:
            await self._offloading.stop()
