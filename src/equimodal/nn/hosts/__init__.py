"""Host models from the papers, for methods to be slipped into.

Each has `encoders`, the modules that belong to one modality alone, and `head`, the module from
features to logits, so that ``eq.Balancer(method, model, dict(model.encoders.items()), model.head,
optimizer)`` balances it. What several modalities share is in neither encoder, and is left alone.
"""

from equimodal.nn.hosts.avga import AVGA, GuidedAttention
from equimodal.nn.hosts.branch import Branch
from equimodal.nn.hosts.centralnet import CentralNet
from equimodal.nn.hosts.cross_modal import CrossModalLayer, CrossModalTransformer, TokenEncoder
from equimodal.nn.hosts.mmtm import MMTM, MMTMBlock
from equimodal.nn.hosts.named import NamedHead
from equimodal.nn.hosts.psp import PSP, Propagation, pair_similarity_loss
from equimodal.nn.hosts.segments import segment_cross_entropy
from equimodal.nn.hosts.tsn import TSN, sample_segments

__all__ = [
    "AVGA",
    "MMTM",
    "PSP",
    "TSN",
    "Branch",
    "CentralNet",
    "CrossModalLayer",
    "CrossModalTransformer",
    "GuidedAttention",
    "MMTMBlock",
    "NamedHead",
    "Propagation",
    "TokenEncoder",
    "pair_similarity_loss",
    "sample_segments",
    "segment_cross_entropy",
]
