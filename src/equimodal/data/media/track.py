"""The sound or the pictures of a file, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from equimodal.data.media.file import growth, present
from equimodal.data.media.refusal import Undecodable

SEEK_FROM = 2.0  # what starts before is decoded from the beginning
LEAD = 1.0  # seconds to decode before what is wanted: codecs need frames that went before
SETTLED = 0.5  # seconds after a seek from which sound is as without it
# Where a seek lands on the right frame and tells its time. In MP3, ADTS and other raw streams it
# is guessed from the bit rate; in MPEG program streams the first packets are cut or wrongly timed.
SEEKABLE = {"avi", "flac", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mpegts", "wav"}
KINDS = {"audio": "sound", "video": "video"}


class Track:
    """The first stream of sound or of pictures in a file; covers of albums are no pictures.

    Times count from the moment at which the first of the file's streams begins, so that sound and
    pictures of one file stay together.

    Args:
        path: of the file.
        kind: which of the two.

    Attributes:
        stream: of PyAV.
        stated: when it ends by the file's own account, in seconds; None if the file does not say.

    Raises:
        Undecodable: the file is missing, empty, no media file, or has no such stream; at the end
            of a ``with`` block also for an error of PyAV inside.
    """

    def __init__(self, path: Path, kind: Literal["audio", "video"]) -> None:
        self._path = present(path)
        self._kind = kind
        self._container: Any = None
        self.stream: Any = None
        self._origin = Fraction(0)
        self.stated: float | None = None

    def __enter__(self) -> Track:
        try:
            self._open()
        except BaseException as error:
            self._close()
            self._refuse(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._close()
        self._refuse(error)

    def seconds(self, ticks: int) -> Fraction:
        """Return how long a number of the stream's time units is."""
        return ticks * Fraction(self.stream.time_base)

    def time(self, stamp: int) -> Fraction:
        """Return the seconds from the beginning of the file at a time stamp of the stream."""
        return self.seconds(stamp) - self._origin

    @property
    def step(self) -> Fraction:
        """The seconds from one picture to the next, on average."""
        return 1 / Fraction(self.stream.average_rate or self.stream.guessed_rate or 25)

    def frames(self, start: float) -> Iterator[Any]:
        """Yield what decodes, in order of presentation, from before `start` to the end.

        Damaged packets are passed over; what a container cannot go on from is the end.
        """
        if start >= SEEK_FROM and self._container.format.name in SEEKABLE:
            frames = self._decoded()
            first = self._sought(start, frames)
            if first is not None:
                yield first
                yield from frames
                return
            self._open()
        yield from self._decoded()

    def measured(self) -> float:
        """Return when the last picture ends, in seconds, from time stamps alone.

        The end that is stated is an estimate in containers that are written as they come.
        """
        self._open()
        end = Fraction(0)
        for packet in self._packets():
            if packet.size:
                stamp = packet.dts if packet.pts is None else packet.pts
                begin = end if stamp is None else self.time(stamp)
                end = max(end, begin + (self.seconds(packet.duration or 0) or self.step))
        self._open()
        return float(end)

    def refuse_none(self, end: float) -> None:
        """Refuse a stream that holds nothing, and does not say that it should.

        Args:
            end: of what it holds, in seconds.

        Raises:
            Undecodable: it is one.
        """
        if end <= 0 and not self.stated:
            raise Undecodable(f"no {KINDS[self._kind]}")

    def _open(self) -> None:
        import av

        self._close()
        # "file:" so that a name like "concat:a" is a name; the list of protocols so that a
        # playlist cannot reach for the network; tags need not be UTF-8.
        self._container = av.open(
            f"file:{self._path}",
            metadata_errors="replace",
            options={"protocol_whitelist": "file"},
        )
        streams = [
            stream
            for stream in self._container.streams
            if stream.type in KINDS and not stream.disposition & av.stream.Disposition.attached_pic
        ]
        own = [stream for stream in streams if stream.type == self._kind]
        if not own:
            raise Undecodable(f"no {KINDS[self._kind]}")
        self.stream = own[0]
        if self.stream.codec_context is None:
            raise Undecodable(f"unreadable: no decoder for its {KINDS[self._kind]}")
        self.stream.codec_context.thread_count = 1  # threads conceal damage in different ways
        begins = [
            stream.start_time * Fraction(stream.time_base)
            for stream in streams
            if stream.start_time is not None and stream.time_base is not None
        ]
        # What comes before 0 is there for the codec alone.
        self._origin = max(Fraction(0), min(begins, default=Fraction(0)))
        self.stated = self._end()

    def _end(self) -> float | None:
        """Return the end that the stream states, or else the container."""
        stream = self.stream
        whole = self._container.duration
        if stream.duration is not None:
            end = float(self.time((stream.start_time or 0) + stream.duration))
        elif whole is not None:
            end = float(whole) / 1e6
            if self._container.format.name == "matroska,webm":  # when it ends, not how long it is
                end -= float(self._origin)
        else:
            return None
        if self._container.format.name in ("avi", "wav"):
            return end * growth(self._path)
        return end

    def _packets(self) -> Iterator[Any]:
        import av

        try:
            yield from self._container.demux(self.stream)
        # PyAV raises IndexError at the end of a file in which a stream has turned up late.
        except (av.error.FFmpegError, IndexError):
            return

    def _decoded(self) -> Iterator[Any]:
        import av

        for packet in self._packets():
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            yield from decoded
        try:  # what the decoder still holds if the packets ended in an error
            yield from self.stream.codec_context.decode(None)
        except av.error.FFmpegError:
            return

    def _sought(self, start: float, frames: Iterator[Any]) -> Any:
        """Go to before `start`; return the first frame to be trusted, or None if there is none."""
        import av

        pictures = self._kind == "video"
        target = (Fraction(start - LEAD) + self._origin) / Fraction(self.stream.time_base)
        try:
            self._container.seek(int(target), stream=self.stream)
        except av.error.FFmpegError:
            return None
        for frame in frames:
            if pictures and not frame.key_frame:
                continue
            latest = start if pictures else start - SETTLED
            if frame.pts is None or self.time(frame.pts) > latest:
                return None
            return frame
        return None

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _refuse(self, error: BaseException | None) -> None:
        import av

        if isinstance(error, av.error.FFmpegError):
            raise Undecodable(f"unreadable: {error.strerror}") from error
