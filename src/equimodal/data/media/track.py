"""The sound or the pictures of a file, frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from equimodal.data.media import length
from equimodal.data.media.file import present
from equimodal.data.media.keys import wanted
from equimodal.data.media.losses import Losses
from equimodal.data.media.priming import priming
from equimodal.data.media.refusal import Undecodable
from equimodal.data.media.span import spare

SEEK_FROM = 2.0  # what starts before is decoded from the beginning
LEAD = 1.0  # seconds to decode before what is wanted: codecs need frames that went before
SETTLED = 0.5  # seconds after a seek from which sound is as without it
# Where a seek lands on the right frame and tells its time. In MP3, ADTS and other raw streams it
# is guessed from the bit rate; in MPEG program streams the first packets are cut or wrongly timed.
SEEKABLE = {"avi", "flac", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mpegts", "wav"}
RAW = {"aac", "ac3", "eac3", "mp3"}  # a stream without a container
NEARLY = 0.1  # seconds by which an end may differ from a stated one
# After damage these go on where they find their way again: what was skipped shows in the places of
# packets, for which those of all streams are looked at.
SKIPPING = {"matroska,webm", "flv", "asf", "mpeg", "ogg"}
KINDS = {"audio": "sound", "video": "video"}


class Track:
    """The sound or the pictures of a file: its default stream, as FFmpeg chooses it.

    Covers of albums are no pictures. Times count from the moment at which the first of the file's
    streams begins, so that sound and pictures of one file stay together.

    Args:
        path: of the file.
        kind: which of the two.

    Attributes:
        stream: of PyAV.
        others: how many more streams of the kind there are.
        stated: when it ends, in seconds, if the file counts that for this stream; else None.
        losses: what damage took, as far as was read.
        due: when the stream should end, in seconds, once it was measured.

    Raises:
        Undecodable: the file is missing, empty, no media file, or has no such stream; at the end
            of a ``with`` block also for an error of PyAV inside.
    """

    def __init__(self, path: Path, kind: Literal["audio", "video"]) -> None:
        self._path = present(path)
        self._kind = kind
        self._container: Any = None
        self.stream: Any = None
        self.others = 0
        self._unit = (1, 1)  # of time stamps: a fraction of a second
        self._begins = 0.0
        self._index: list[tuple[float | None, bool]] = []  # when packets begin; which are keys
        self.stated: float | None = None
        self._whole: Fraction | None = None
        self._intact = False
        self._reached = 0.0  # by any stream
        self._decoded_to = 0.0  # in the order of the file, by the stream
        self.losses = Losses()
        self.due = 0.0

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

    def seconds(self, ticks: int) -> float:
        """Return how long a number of the stream's time units is."""
        return ticks * self._unit[0] / self._unit[1]

    def time(self, stamp: int) -> float:
        """Return the seconds from the beginning of the file at a time stamp of the stream."""
        return stamp * self._unit[0] / self._unit[1] - self._begins

    @property
    def what(self) -> str:
        """What it is a stream of, in a word."""
        return KINDS[self._kind]

    @property
    def step(self) -> float:
        """The seconds from one picture to the next, on average."""
        return float(1 / Fraction(self.stream.average_rate or self.stream.guessed_rate or 25))

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

    def chosen(self, moments: Sequence[float]) -> Iterator[Any] | None:
        """Yield pictures in order, those that are seen at these moments among them.

        From `measured` it is known which they are: decoded is from the key picture before each on,
        and what lies between is not. None where time stamps do not say it.
        """
        runs = wanted(self._index, moments)
        return None if runs is None else self._runs(runs)

    def _runs(self, runs: Sequence[range]) -> Iterator[Any]:
        import av

        ends = {run[-1] for run in runs}
        needed = {place for run in runs for place in run}
        context = self.stream.codec_context
        for place, packet in enumerate(self._packets()):
            if place in needed:
                yield from self._decode(packet)
            if place in ends:
                with contextlib.suppress(av.error.FFmpegError):
                    yield from context.decode(None)
                context.flush_buffers()

    def measured(self) -> float:
        """Return when the last picture ends, in seconds, from time stamps alone.

        Where pictures come in another order than they are shown, MP4 knows how long one lasts in
        the order of the file alone: the end that it counted is the better one, if all are there.
        """
        self._open()
        last, lasts = -1.0, 0.0
        self._index = []
        for packet in self._packets():
            stamp = packet.dts if packet.pts is None else packet.pts
            begin = last + lasts if stamp is None else self.time(stamp)
            timed = packet.pts is not None and not packet.is_corrupt
            self._index.append((begin if timed else None, packet.is_keyframe))
            if begin >= last:
                last, lasts = begin, self.seconds(packet.duration or 0) or self.step
        end = max(0.0, last + lasts)
        if self.stated is not None and self.stated > last:
            end = self.stated if self.complete else min(end, self.stated)
        self.due = self.end(end)
        self._open()
        return end

    @property
    def complete(self) -> bool:
        """Whether all is there that the file has counted for the stream."""
        return self.stated is not None and self._decoded_to >= self.stated - NEARLY

    def rewind(self) -> None:
        """Go to the beginning, where packets have been read already."""
        if self._decoded_to:
            self._open()
            self._decoded_to = 0.0

    def end(self, found: float) -> float:
        """Return when the stream should end; to be asked when all of the file was read.

        That is where what was found ends, or later by a count that the file holds for the stream.
        Of a file that counts for its longest stream alone a tag says when this one ends; without
        such tags the stream is cut if all streams of the file end early. None of that counts for
        a file that is as large as it says it is: nothing is missing there.

        Args:
            found: where what was found ends, in seconds.
        """
        if self.stated is not None:
            return max(found, self.stated)
        whole = self._whole
        if whole is None or self._intact:
            return found
        own = length.tagged(self.stream, self._container)
        if own is None and whole - self._reached <= spare(float(whole) - self._begins):
            return found
        return max(found, float(own or whole) - self._begins)

    def believes(self, time: float) -> bool:
        """Return whether a time stamp lies within what the file states, where it states anything.

        A damaged one may be years away; a lecture may show one picture for an hour.
        """
        whole = self._container.duration
        return bool(whole) and time <= float(whole) / 1e6 + 1.0

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
        best = self._container.streams.best(self._kind)
        self.stream = best if best in own else own[0]
        self.others = len(own) - 1
        if self.stream.codec_context is None:
            raise Undecodable(f"unreadable: no decoder for its {KINDS[self._kind]}")
        self.stream.codec_context.thread_count = 1  # threads conceal damage in different ways
        raw = self._container.format.name in RAW
        begins = [
            (stream.start_time or 0) * Fraction(stream.time_base) + priming(self._container, stream)
            for stream in streams
            if (raw or stream.start_time is not None) and stream.time_base is not None
        ]
        # What comes before 0 is there for the codec alone.
        origin = max(Fraction(0), min(begins, default=Fraction(0)))
        if self._container.format.name == "avi":  # each stream begins at 0, whatever was before
            origin = priming(self._container, self.stream)
        self._begins = float(origin)
        unit = Fraction(self.stream.time_base)
        self._unit = (unit.numerator, unit.denominator)
        lasts = length.of_stream(self._container, self.stream, self._path)
        self.stated = None
        if lasts is not None:
            self.stated = self.time(self.stream.start_time or 0) + float(lasts)
        self._whole = length.of_file(self._container)
        self._intact = length.intact(self._container, self._path)
        self._streams = (
            streams if self._container.format.name in SKIPPING | length.OF_FILES else [self.stream]
        )

    def _packets(self) -> Iterator[Any]:
        """Yield the packets of the stream that hold something."""
        import av

        self.losses = Losses()
        self._decoded_to = 0.0
        skipping = self._container.format.name in SKIPPING
        units = {stream.index: Fraction(stream.time_base or 1) for stream in self._streams}
        parts = {index: (unit.numerator, unit.denominator) for index, unit in units.items()}
        own = self.stream.index
        try:
            for packet in self._container.demux(self._streams):
                if not packet.size:
                    continue
                if skipping:
                    self.losses.passed(packet)
                index = packet.stream_index
                if index == own and packet.is_corrupt:
                    self.losses.corrupt()
                pts, dts = packet.pts, packet.dts
                stamp = dts if pts is None else pts
                if stamp is not None:
                    lasts, (num, den) = packet.duration or 0, parts[index]
                    self._reached = max(self._reached, (stamp + lasts) * num / den)
                    if index == own:
                        told = stamp if dts is None else dts
                        self._decoded_to = max(self._decoded_to, self.time(told + lasts))
                if index == own:
                    yield packet
        # PyAV raises IndexError at the end of a file in which a stream has turned up late.
        except (av.error.FFmpegError, IndexError):
            return

    def _decoded(self) -> Iterator[Any]:
        import av

        for packet in self._packets():
            yield from self._decode(packet)
        try:  # what the decoder still holds
            yield from self.stream.codec_context.decode(None)
        except av.error.FFmpegError:
            return

    def _decode(self, packet: Any) -> Sequence[Any]:
        import av

        since = None if packet.pts is None else self.time(packet.pts)
        pictures = self._kind == "video"
        if since is not None and pictures:
            self.losses.expect(since)
        elif since is not None:
            self.losses.heard(since)
        try:
            decoded: Sequence[Any] = packet.decode()
        except av.error.FFmpegError:
            self.losses.refused(since, 0.0 if pictures else self.lasts(packet))
            return ()
        return decoded

    def lasts(self, what: Any) -> float:
        """Return how many seconds a packet or frame lasts by its own account, 0 if it has none."""
        return self.seconds(what.duration or 0)

    def _sought(self, start: float, frames: Iterator[Any]) -> Any:
        """Go to before `start`; return the first frame to be trusted, or None if there is none."""
        import av

        pictures = self._kind == "video"
        # After a seek too, FFmpeg takes from the first frame what was to come before the first
        # sample: what is left of it is timed by guess.
        cut = not pictures and self._container.format.name == "matroska,webm"
        target = (start - LEAD + self._begins) * self._unit[1] / self._unit[0]
        try:
            self._container.seek(int(target), stream=self.stream)
        except av.error.FFmpegError:
            return None
        for frame in frames:
            if (pictures and not frame.key_frame) or cut:
                cut = False
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
