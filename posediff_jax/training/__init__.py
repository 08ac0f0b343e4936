"""Training: optimiser, average, step, loop, checkpoints, metrics log."""

from posediff_jax.training.checkpoint_files import BrokenCheckpointError as BrokenCheckpointError
from posediff_jax.training.checkpoint_files import CheckpointInfo as CheckpointInfo
from posediff_jax.training.checkpoints import CheckpointStore as CheckpointStore
from posediff_jax.training.checkpoints import check_skeleton as check_skeleton
from posediff_jax.training.checkpoints import load_variables as load_variables
from posediff_jax.training.ema import EmaOptions as EmaOptions
from posediff_jax.training.ema import constant_ema as constant_ema
from posediff_jax.training.ema import ema_decay as ema_decay
from posediff_jax.training.ema import make_ema as make_ema
from posediff_jax.training.ema import update_ema as update_ema
from posediff_jax.training.lock import only_run as only_run
from posediff_jax.training.loop import train as train
from posediff_jax.training.metrics_log import MetricsLog as MetricsLog
from posediff_jax.training.metrics_log import read_metrics as read_metrics
from posediff_jax.training.optimizers import OptimizerOptions as OptimizerOptions
from posediff_jax.training.optimizers import learning_rate_schedule as learning_rate_schedule
from posediff_jax.training.optimizers import make_optimizer as make_optimizer
from posediff_jax.training.optimizers import make_plateau as make_plateau
from posediff_jax.training.plateau import Plateau as Plateau
from posediff_jax.training.state import TrainState as TrainState
from posediff_jax.training.state import create_state as create_state
from posediff_jax.training.state import eval_variables as eval_variables
from posediff_jax.training.state import state_from_variables as state_from_variables
from posediff_jax.training.step import make_train_step as make_train_step
from posediff_jax.training.step import stream_key as stream_key
