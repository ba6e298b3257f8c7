// Tells torch that there is one CUDA device, for a build of torch without CUDA: it asks at every
// index and every copy which device is the current one. Nothing else of a device is here.
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

using c10::Device;
using c10::DeviceType;
using c10::Stream;

struct OneCard final : c10::impl::DeviceGuardImplInterface {
    DeviceType type() const override { return DeviceType::CUDA; }
    Device exchangeDevice(Device) const override { return card(); }
    Device getDevice() const override { return card(); }
    void setDevice(Device) const override {}
    void uncheckedSetDevice(Device) const noexcept override {}
    Stream getStream(Device) const override { return Stream(Stream::DEFAULT, card()); }
    Stream getNewStream(Device, int = 0) const override { return Stream(Stream::DEFAULT, card()); }
    Stream exchangeStream(Stream stream) const override { return stream; }
    c10::DeviceIndex deviceCount() const noexcept override { return 1; }

    static Device card() { return Device(DeviceType::CUDA, 0); }
};

const OneCard one_card;

}  // namespace

extern "C" void register_card() {
    c10::impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(&one_card);
}
extern "C" void unregister_card() {
    c10::impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(nullptr);
}
