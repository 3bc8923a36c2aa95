"""Running a trained model on pictures, and drawing what it sees."""

from ._draw import Ranking as Ranking
from ._draw import contact_sheet as contact_sheet
from ._draw import draw_boxes as draw_boxes
from ._draw import draw_ranking as draw_ranking
from ._draw import save_picture as save_picture
from ._draw import similarity_sheet as similarity_sheet
from ._files import FilePredictions as FilePredictions
from ._files import check_embeddings_file as check_embeddings_file
from ._files import predict_files as predict_files
from ._files import save_embeddings as save_embeddings
from ._gallery import Gallery as Gallery
from ._gallery import embedding_tasks as embedding_tasks
from ._predictor import Predictor as Predictor
from ._predictor import find_images as find_images
from ._predictor import load_run as load_run
from ._preview import preview as preview
from ._sheets import picture_of as picture_of
from ._sheets import prediction_sheet as prediction_sheet
