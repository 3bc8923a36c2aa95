"""Running a trained model on pictures."""

from ._embeddings import check_embeddings_file as check_embeddings_file
from ._embeddings import save_embeddings as save_embeddings
from ._files import FilePredictions as FilePredictions
from ._files import check_out as check_out
from ._files import predict_files as predict_files
from ._gallery import Gallery as Gallery
from ._gallery import embedding_tasks as embedding_tasks
from ._gallery import gallery_pictures as gallery_pictures
from ._pictures import Source as Source
from ._pictures import find_pictures as find_pictures
from ._predictor import Predictor as Predictor
from ._predictor import load_run as load_run
from ._sheets import prediction_sheet as prediction_sheet
from ._sheets import preview as preview
from ._verify import Verification as Verification
from ._verify import verify as verify
