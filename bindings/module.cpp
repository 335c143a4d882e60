// SPDX-License-Identifier: Apache-2.0
//
// shoal._core: the binding module. It only gathers what the bind_*.cpp files offer.
#include <nanobind/nanobind.h>

#include "bind.hpp"
#include "codec/python/codec.hpp"

#ifndef SHOAL_MODULE_NAME
#define SHOAL_MODULE_NAME _core
#endif

NB_MODULE(SHOAL_MODULE_NAME, module) {
  using namespace shoal::bindings;
  module.doc() = "The C++ core of shoal. Private: use the shoal package.";
  PyObject* raw = module.ptr();
  shoal::codec::python::set_exception_translation(set_python_error);
  const bool bound = bind_process(raw) && bind_fork_hook(raw) && bind_pool_client(raw) &&
                     bind_pool_worker(raw) && bind_pool_agent(raw) && bind_channel(raw) &&
                     bind_sync(raw) && bind_queue(raw) && bind_pipe(raw) && bind_collections(raw) &&
                     bind_file_mapping(raw) && bind_opcodes(raw) && bind_codec_for_test(raw) &&
                     bind_testing(raw);
  if (!bound) throw nanobind::python_error();
}
