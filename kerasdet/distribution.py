"""Several devices or processes: who makes which part of a batch, and sums over all of it.

Under TensorFlow's `MirroredStrategy` and `MultiWorkerMirroredStrategy` the training step runs on every
device, each with its part of the batch, and Keras adds up their gradients: so losses of the parts have to
add up to that of the batch. Under `keras.distribution.DataParallel`, JAX compiles one step for the whole
batch, and a sum is over all of it.
"""

from __future__ import annotations

import dataclasses
import itertools

import keras
from keras import ops


@dataclasses.dataclass(frozen=True)
class Share:
    """This process's part of every batch.

    Attributes:
        process: its number.
        processes: how many there are; each makes as many photos of a batch.
        replicas: devices of all processes, each of which learns from as many photos.
    """

    process: int = 0
    processes: int = 1
    replicas: int = 1


def share_of(model) -> Share:
    """How the batches of a model are shared: as Keras was told when the model was made."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        strategy = getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
        place = (0, 1)
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            place = place_in(strategy.cluster_resolver)
        return Share(*place, strategy.num_replicas_in_sync)
    distribution = keras.distribution.distribution()
    if distribution is None:
        return Share()
    import jax

    return Share(jax.process_index(), jax.process_count(), int(distribution.device_mesh.devices.size))


def place_in(cluster) -> tuple[int, int]:
    """This process's number, a chief's before the workers', and how many there are that train.

    Args:
        cluster: TensorFlow's `ClusterResolver`; without TF_CONFIG it names nobody, and the process is alone.
    """
    jobs = cluster.cluster_spec().as_dict()
    chiefs, workers = (len(jobs.get(name, ())) for name in ("chief", "worker"))
    if chiefs + workers < 2:
        return 0, 1
    return cluster.task_id + (chiefs if cluster.task_type == "worker" else 0), chiefs + workers


def handed_out(batches, model):
    """A process's own batches as Keras has to be given them, endless or not.

    Of TensorFlow's processes, Keras would take every batch for that of all of them, and share it again.

    Args:
        batches: Grain's `IterDataset` of this process's part of every batch, arrays (b, ...).
        model: the detector that they are for.

    Returns:
        The same, or a `tf.distribute.DistributedDataset` of it.
    """
    share = share_of(model)
    if share.processes == 1 or keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    devices = share.replicas // share.processes

    def spec(*arrays):
        # Squares may change their size, and the last batch is of fewer photos.
        sides = [set(sides) for sides in zip(*(array.shape[1:] for array in arrays), strict=True)]
        return tf.TensorSpec((None, *(min(s) if len(s) == 1 else None for s in sides)), arrays[0].dtype)

    def parts():
        for batch in batches:
            for device in range(devices):
                yield tf.nest.map_structure(lambda array, device=device: array[device::devices], batch)

    # As Keras does it: two batches tell which sides change.
    signature = tf.nest.map_structure(spec, *itertools.islice(batches, 2))
    return model.distribute_strategy.distribute_datasets_from_function(
        lambda context: tf.data.Dataset.from_generator(parts, output_signature=signature)
    )


def joined_logs(logs: dict, model) -> dict:
    """Logs of a step as Keras' trainer can join them over processes: it takes their mean over an axis."""
    if _replica_context() is None or share_of(model).processes == 1:
        return logs
    return {name: ops.reshape(value, (1,)) for name, value in logs.items()}


def _replica_context():
    """TensorFlow's, where several replicas run this side by side; otherwise None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def replicas_apart() -> int:
    """How many replicas run this step, each with a loss of its own; 1 where there is one loss."""
    context = _replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def batch_sum(values):
    """Sum over the whole batch, of which a replica may hold a part only.

    What a loss is divided by has to be one, such as the number of objects: devices that see many of them
    and devices that see few then add up to what one device would have learned.

    Args:
        values: (...) of this replica's part.

    Returns:
        ().
    """
    total, context = ops.sum(values), _replica_context()
    if context is None:
        return total
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, total)
