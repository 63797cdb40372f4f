"""Photos with boxes: readers, sets, drawn scenes and the loader that feeds `fit`.

`load` reads a folder or an annotation file into a `Dataset`, a sequence of `Sample`; `from_tfds` does so
with a set of TensorFlow Datasets.
"""

from kerasdet.data.dataset import Dataset
from kerasdet.data.proposals import selective_search
from kerasdet.data.readers import load, splits
from kerasdet.data.readers.tfds import from_tfds
from kerasdet.data.sample import Sample

__all__ = ["Dataset", "Sample", "from_tfds", "load", "selective_search", "splits"]
