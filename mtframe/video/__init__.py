"""Films and cameras: frames with their times, read in a thread of its own; and films written of pictures."""

from ._ahead import read_ahead as read_ahead
from ._cut import Cut as Cut
from ._cut import seconds as seconds
from ._film import Film as Film
from ._film import Frame as Frame
from ._film import Sound as Sound
from ._film import is_camera as is_camera
from ._write import FilmWriter as FilmWriter
