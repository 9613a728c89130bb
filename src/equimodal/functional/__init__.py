"""The papers' equations as pure tensor functions: no modules, no state."""

from equimodal.functional.agm import (
    agm_coefficient,
    circle_weights,
    confidence_ratio,
    shapley_responses,
)
from equimodal.functional.amco import mask_rate, reliance, unmasked
from equimodal.functional.amss import drawn_filters, label_information, updated_shares
from equimodal.functional.arl import asymmetric_weights
from equimodal.functional.aug import confidence_gaps, lagging_modalities, residual_loss
from equimodal.functional.cggm import cggm_coefficients, correctness, direction_loss
from equimodal.functional.cml import confidence_excess
from equimodal.functional.coefficients import (
    continuous_coefficient,
    thresholded_coefficient,
    two_sided_coefficient,
)
from equimodal.functional.data_remixing import least_separable, separability
from equimodal.functional.di_mml import (
    confidence_weighted,
    discriminative,
    nearest_classes,
    one_way_contrast,
)
from equimodal.functional.distillation import feature_distance, logit_divergence, prioritised
from equimodal.functional.evidence import discrepancy_ratio, log_score, log_sum
from equimodal.functional.gradient_blending import blending_weights
from equimodal.functional.greedy import learning_speed, speed_difference
from equimodal.functional.inforeg import holding_strength, prime_indicator, score_gap
from equimodal.functional.kmeans import lloyd, spread_centres
from equimodal.functional.lfm import (
    jensen_shannon_divergence,
    late_average,
    mixture_first_divergence,
    weight_slope,
)
from equimodal.functional.linear import split_affine, split_columns, split_linear
from equimodal.functional.masam import alignment, along, displacement, progress
from equimodal.functional.mbsd import self_distillation
from equimodal.functional.mcr import changed_prediction, scaled_gradient, supervised_contrast
from equimodal.functional.midas import (
    misaligned_loss,
    misaligned_sources,
    replaced_similarity,
    weak_modality_weight,
)
from equimodal.functional.mimo import smooth_maximum
from equimodal.functional.mla import entropy_weights, recursive_least_squares, unit_norm
from equimodal.functional.mmcosine import cosine_logits, unit_rows
from equimodal.functional.mmpareto import min_norm_weight, restoring_factor
from equimodal.functional.modality_dropout import keep_modalities, keep_probability
from equimodal.functional.modgap import symmetric_contrast, uniformity
from equimodal.functional.mses import patience_spent
from equimodal.functional.mslr import relative_accuracy
from equimodal.functional.mwam import cosine_transform, frequency_factors, frequency_ratios
from equimodal.functional.noise import (
    element_std,
    running_moments_,
    slice_moments,
    sliced_std,
    std_of_sums,
    tensor_std,
)
from equimodal.functional.olm import norm_slope, relative_pace
from equimodal.functional.opm import drop_probability, drop_scale
from equimodal.functional.passion import (
    lagging,
    prototype_similarity,
    similarity_gap,
    softened_divergence,
    updated_factors,
)
from equimodal.functional.pmr import (
    class_sums,
    dominance,
    graded_stimulation,
    prototype_entropy,
    prototype_logits,
    prototype_losses,
    switched_stimulation,
)
from equimodal.functional.preference import preference_losses
from equimodal.functional.reconboost import agreement, boosting_loss
from equimodal.functional.relearning import purity, relearning_strength, scale_columns, soften
from equimodal.functional.tcmax import additive_log_mean_exp, log_mean_exp, total_correlation_loss
from equimodal.functional.valuation import (
    coalitions,
    contributions,
    repetitions,
    resampling_rate,
    shapley_values,
    weighted_sums,
)

__all__ = [
    "additive_log_mean_exp",
    "agm_coefficient",
    "agreement",
    "alignment",
    "along",
    "asymmetric_weights",
    "blending_weights",
    "boosting_loss",
    "cggm_coefficients",
    "changed_prediction",
    "circle_weights",
    "class_sums",
    "coalitions",
    "confidence_excess",
    "confidence_gaps",
    "confidence_ratio",
    "confidence_weighted",
    "continuous_coefficient",
    "contributions",
    "correctness",
    "cosine_logits",
    "cosine_transform",
    "direction_loss",
    "discrepancy_ratio",
    "discriminative",
    "displacement",
    "dominance",
    "drawn_filters",
    "drop_probability",
    "drop_scale",
    "element_std",
    "entropy_weights",
    "feature_distance",
    "frequency_factors",
    "frequency_ratios",
    "graded_stimulation",
    "holding_strength",
    "jensen_shannon_divergence",
    "keep_modalities",
    "keep_probability",
    "label_information",
    "lagging",
    "lagging_modalities",
    "late_average",
    "learning_speed",
    "least_separable",
    "lloyd",
    "log_mean_exp",
    "log_score",
    "log_sum",
    "logit_divergence",
    "mask_rate",
    "min_norm_weight",
    "misaligned_loss",
    "misaligned_sources",
    "mixture_first_divergence",
    "nearest_classes",
    "norm_slope",
    "one_way_contrast",
    "patience_spent",
    "preference_losses",
    "prime_indicator",
    "prioritised",
    "progress",
    "prototype_entropy",
    "prototype_logits",
    "prototype_losses",
    "prototype_similarity",
    "purity",
    "recursive_least_squares",
    "relative_accuracy",
    "relative_pace",
    "relearning_strength",
    "reliance",
    "repetitions",
    "replaced_similarity",
    "resampling_rate",
    "residual_loss",
    "restoring_factor",
    "running_moments_",
    "scale_columns",
    "scaled_gradient",
    "score_gap",
    "self_distillation",
    "separability",
    "shapley_responses",
    "shapley_values",
    "similarity_gap",
    "slice_moments",
    "sliced_std",
    "smooth_maximum",
    "soften",
    "softened_divergence",
    "speed_difference",
    "split_affine",
    "split_columns",
    "split_linear",
    "spread_centres",
    "std_of_sums",
    "supervised_contrast",
    "switched_stimulation",
    "symmetric_contrast",
    "tensor_std",
    "thresholded_coefficient",
    "total_correlation_loss",
    "two_sided_coefficient",
    "uniformity",
    "unit_norm",
    "unit_rows",
    "unmasked",
    "updated_factors",
    "updated_shares",
    "weak_modality_weight",
    "weight_slope",
    "weighted_sums",
]
