"""The thread that starts workers, sees them die, starts them again, and reaps them."""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from flyweight.server.runtime.process.post import Phase, Post
from flyweight.server.survival import survive

# How often a worker with runs in progress is looked at for signs of life.
_WATCH_SECONDS: Final = 10.0
_MILLISECONDS: Final = 1000.0


class Supervisor:
    """Owns the thread "flyweight-workers", which lives while there are posts.

    It alone starts processes: the kernel ends a worker with the thread that started it, so no thread that
    comes and goes may do it.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._posts: list[Post] = []
        # Never longer than the number of posts.
        self._leaving: deque[Post] = deque()
        self._thread: threading.Thread | None = None
        self._bell = -1

    def take(self, post: Post) -> None:
        """Look after a post from now on: its first worker is started at once."""
        with self._lock:
            self._posts.append(post)
            if self._thread is None:
                self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._thread = threading.Thread(target=self._work, name="flyweight-workers", daemon=True)
                self._thread.start()
            self._ring()

    def close(self, post: Post) -> None:
        """Have a post's worker end; the post's `closed` tells when it has."""
        with self._lock:
            if self._thread is not None:
                self._leaving.append(post)
                self._ring()

    def wake(self) -> None:
        """Have every post looked at now: the clock moved."""
        with self._lock:
            self._ring()

    def _ring(self) -> None:
        if self._thread is not None:
            os.eventfd_write(self._bell, 1)

    def _work(self) -> None:
        while True:
            while self._leaving:
                self._leaving.popleft().close()
            for post in tuple(self._posts):
                survive(f"looking after {post.task.name}", post.look, lambda _: None)
            closed, is_over = self._forget_closed()
            for post in closed:
                post.settle()
            if is_over:
                return
            self._wait()

    def _forget_closed(self) -> tuple[list[Post], bool]:
        """Return the posts that were closed, and whether the thread, having no other, is to end."""
        with self._lock:
            closed = [post for post in self._posts if post.phase is Phase.CLOSED]
            self._posts = [post for post in self._posts if post.phase is not Phase.CLOSED]
            if self._posts:
                return closed, False
            os.close(self._bell)
            self._thread, self._bell = None, -1
            return closed, True

    def _wait(self) -> None:
        """Wait until a process ends, a report comes, the bell rings, or a post's moment comes."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        now = self._monotonic()
        ends = now + _WATCH_SECONDS
        for post in self._posts:
            if post.process is not None:
                poll.register(post.process.pidfd, select.POLLIN)
                if post.phase is Phase.STARTING:
                    poll.register(post.process.control, select.POLLIN)
            if post.next_look is not None:
                ends = min(ends, post.next_look)
        # A millisecond more, so that the moment has come when it ends.
        poll.poll(max(0.0, ends - now) * _MILLISECONDS + 1)
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return
