"""Costs by the weights alone, where no samples are wanted: errors as shares of the squares."""

from calculator.checkpoint.stored import StoredModel
from calculator.questions.widths.sensitivity import Sensitivity
from calculator.questions.widths.slots import Slot, Widths
from glm4q.weights.checkpoint import read_weight
from quantize.output.tensors import row_runs
from quantize.quality.evaluate import LayerListener
from quantize.quality.sensitivity.rounding import Errors, errors_of
from quantize.quality.sensitivity.workshop import Workshop


def weigh(
    stored: StoredModel, widths: Widths, workshop: Workshop, listener: LayerListener
) -> Sensitivity:
    """Round every matrix to every width, and compare it with itself."""
    done, records = workshop.read()
    costs = workshop.read_costs()
    if costs is None:
        slots = widths.slots
        for number, slot in enumerate(slots[done:], start=done + 1):
            errors = _errors(stored, slot, widths)
            whole = errors.square or 1.0  # a matrix of zeros loses nothing
            records.append({str(bits): error / whole for bits, error in errors.by_bits.items()})
            workshop.write(records, {})
            listener(number, len(slots))
        costs = {
            slot.name: {int(bits): cost for bits, cost in record.items()}
            for slot, record in zip(slots, records, strict=True)
        }
        workshop.finish(costs)
    return Sensitivity("weights", widths.group_size, widths.symmetric, costs, {})


def _errors(stored: StoredModel, slot: Slot, widths: Widths) -> Errors:
    formats = {bits: widths.format(bits) for bits in slot.bits if bits < 16}
    total = Errors(dict.fromkeys(formats, 0.0), 0.0)
    for weight in slot.weights:
        for start, stop in row_runs(weight):
            total += errors_of(read_weight(stored, weight, start, stop), formats)
    return total
