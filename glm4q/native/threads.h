// Threads of our own: torch's cannot be borrowed from a library that does not link to torch.
#pragma once

namespace glm4q {

using Task = void (*)(const void* job, int piece);

// Calls task(job, 0) ... task(job, pieces - 1), each once, on up to `threads` threads, the caller
// among them. Returns when all are done.
void parallel(int threads, int pieces, Task task, const void* job);

// The same for a callable object.
template <class Callable>
void parallel(int threads, int pieces, const Callable& callable) {
    parallel(
        threads, pieces,
        [](const void* job, int piece) { (*static_cast<const Callable*>(job))(piece); }, &callable);
}

}  // namespace glm4q
