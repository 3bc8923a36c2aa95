"""Pictures: marks on them, sheets of them, files of them."""

from ._files import FORMATS as FORMATS
from ._files import PictureFormat as PictureFormat
from ._files import make_folder as make_folder
from ._files import save_figure as save_figure
from ._files import save_picture as save_picture
from ._files import to_pil as to_pil
from ._marks import caption as caption
from ._marks import draw_marks as draw_marks
from ._marks import size_drawn as size_drawn
from ._sheets import contact_sheet as contact_sheet
from ._sheets import nearest as nearest
from ._sheets import similarity_sheet as similarity_sheet
