// A pool of threads: a library that does not link to torch cannot use torch's threads.
#pragma once

namespace glm4q {

using Task = void (*)(const void* job, int piece);

// Calls task(job, 0) ... task(job, pieces - 1), each once, on up to `threads` threads, one of which
// is the caller. Returns when all calls have returned.
void parallel(int threads, int pieces, Task task, const void* job);

// Calls callable(0) ... callable(pieces - 1) in the same way.
template <class Callable>
void parallel(int threads, int pieces, const Callable& callable) {
    parallel(
        threads, pieces,
        [](const void* job, int piece) { (*static_cast<const Callable*>(job))(piece); }, &callable);
}

}  // namespace glm4q
