"""What detectors of two stages share: where proposals come from, and what their network learns.

Faster R-CNN (Ren et al., NeurIPS 2015). A region proposal network says of anchors on every cell whether they
hold an object; the best boxes are looked at again, see `kerasdet.models.regions`.
"""

from __future__ import annotations

from keras import ops

from kerasdet.boxes import assign, coders
from kerasdet.boxes.proposals import RPN_WEIGHTS, propose
from kerasdet.distribution import batch_sum
from kerasdet.models.regions import RegionDetector

# Section 3.1.2: overlaps from which an anchor is an object, and up to which it is none.
RPN_POSITIVE, RPN_NEGATIVE = 0.7, (0.0, 0.3)
# Section 3.1.3.
RPN_SAMPLES, RPN_SHARE = 256, 0.5
# All regions that are no objects are background; Fast R-CNN leaves out those that overlap none.
ROI_NEGATIVE = (0.0, 0.5)


class TwoStage(RegionDetector):
    """A detector that looks again at the boxes it proposes; a subclass builds its two networks.

    Args:
        inputs, outputs: as of `RegionDetector`; outputs hold object_logit (batch, N) and deltas
            (batch, N, 4) of the N anchors too.
        anchors: of each level (n, 4) float32 xyxy pixels, N in all.
        before: boxes a level that go into the suppression of proposals: in training, and after it.
        proposals: boxes that come out: in training, and after it.
        proposal_iou: overlap above which the lower of two proposals is dropped.
        per_level_nms: False suppresses the proposals of all levels together.
        options: of `RegionDetector`.
    """

    named_losses = ("object_loss", "proposal_loss", "class_loss", "box_loss")

    def __init__(
        self, inputs, outputs, *, anchors, before, proposals, proposal_iou, per_level_nms=True, **options,
    ):
        for key, pair in (("before", before), ("proposals", proposals)):
            if len(pair) != 2 or min(pair) < 1:
                raise ValueError(f"{key} is {pair}; give two numbers above 0: in training, and after it")
        super().__init__(inputs, outputs, proposals=proposals[1], negative=ROI_NEGATIVE, **options)
        self.anchors = anchors
        self.before, self.proposals = tuple(before), tuple(proposals)
        self.proposal_iou, self.per_level_nms = proposal_iou, per_level_nms
        self._config |= {
            "before": list(before), "proposals": list(proposals), "proposal_iou": proposal_iou,
        }
        self.track_losses(*self.named_losses)

    # === Proposals ===

    # In training, which boxes may be proposals, see `boxes.proposals.propose`.
    proposable = None

    def propose(self, raw: dict, training: bool = False):
        """The boxes that the proposal network takes for objects.

        Args:
            raw: the raw outputs.
            training: as many as training asks for.

        Returns:
            boxes (batch, n, 4) float32 xyxy pixels and scores (batch, n), falling; zeros where there are
            fewer. No gradient goes through them (section 3.2, "Approximate joint training").
        """
        which = 0 if training else 1
        return propose(
            raw["object_logit"], raw["deltas"], self.anchors, self.image_size, before=self.before[which],
            after=self.proposals[which], iou_threshold=self.proposal_iou, per_level=self.per_level_nms,
            fits=self.proposable if training else None,
        )

    # === Targets ===

    def rpn_targets(self, targets: dict) -> dict:
        """What every anchor learns (section 3.1.2), before some are sampled.

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).

        Returns:
            positive (batch, N) bool, anchors that are objects; negative (batch, N) bool, those that are
            none, but for those with their middle in an ignore region; weight (batch, N) of the object;
            deltas (batch, N, 4), see `boxes.coders.encode`.
        """
        anchors = ops.concatenate([ops.convert_to_tensor(level) for level in self.anchors], axis=0)
        owner, background = assign.by_overlap(
            targets["boxes"], targets["labels"], anchors, RPN_POSITIVE, RPN_NEGATIVE, best=True
        )
        goal = assign.taught(owner, targets, anchors)
        return {
            "positive": goal["positive"], "negative": ops.logical_and(goal["negative"], background),
            "weight": goal["weight"], "deltas": coders.encode(goal["boxes"], anchors, RPN_WEIGHTS),
        }

    # === Losses ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """Equation 1 for proposals, and Fast R-CNN's equation 1 for regions.

        Each is a mean over the places sampled; boxes by the sum of absolute errors (detectron2's smooth-L1
        with beta 0).
        """
        goal = self.rpn_targets(targets)
        chosen, other = assign.balanced(
            self._random(goal["weight"]), goal["positive"], goal["negative"], RPN_SAMPLES, RPN_SHARE
        )
        chosen = chosen * goal["weight"]
        logits, count = raw["object_logit"], ops.maximum(batch_sum(chosen + other), 1.0)
        miss = ops.sum(chosen * ops.softplus(-logits)) + ops.sum(other * ops.softplus(logits))
        error = ops.sum(ops.abs(raw["deltas"] - goal["deltas"]), axis=-1)
        losses = {"object_loss": miss / count, "proposal_loss": ops.sum(chosen * error) / count}

        boxes, _ = self.propose(raw, training=True)
        return losses | self.learn_regions(targets, raw, boxes)
