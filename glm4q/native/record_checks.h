// What is wrong with a record, in a few words; null if nothing is.
#pragma once

#include "records.h"

namespace glm4q {

const char* fault(const LinearRecord& linear);
const char* fault(const MatmulRecord& call);
const char* fault(const DenseMatmulRecord& call);
const char* fault(const NormRecord& call);
const char* fault(const AttentionRecord& call);
const char* fault(const LayerRecord& layer, const StepRecord& step);
const char* fault(const StepRecord& step);
const char* fault(const GramRecord& call);
const char* fault(const RoundingRecord& call);
const char* fault(const CompensationRecord& call);
const char* fault(const DescentRecord& call);
const char* fault(const SubtractionRecord& call);

}  // namespace glm4q
