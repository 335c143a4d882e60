// SPDX-License-Identifier: Apache-2.0
//
// A C++ member of a Python session: receives matrices from the channel "matrices", sums their
// columns, and sends {"rows": ..., "sums": array} to the channel "sums", until "matrices" is
// closed. examples/cpp/column_sums.py is its partner.
//
//     column_sums PID      joins the session of the Python process PID
#include <shoal/channel.hpp>

#include <cstdlib>
#include <iostream>

namespace {

shoal::Value column_sums(const shoal::Array& matrix) {
  const auto rows = matrix.shape()[0];
  const auto columns = matrix.shape()[1];
  shoal::Array sums(shoal::ElementType::float64, {columns});
  for (std::uint64_t row = 0; row < rows; ++row) {
    for (std::uint64_t column = 0; column < columns; ++column) {
      sums.as<double>()[column] += matrix.as<double>()[row * columns + column];
    }
  }
  return shoal::Value::dict({{"rows", static_cast<std::int64_t>(rows)}, {"sums", sums}});
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::cerr << "usage: column_sums PID\n";
    return 2;
  }
  const shoal::Session session = shoal::Session::join(std::atoi(argv[1]));
  shoal::Channel matrices(session, "matrices");
  shoal::Channel sums(session, "sums");
  shoal::Value message;
  int count = 0;
  while (matrices.receive(&message) == shoal::ReceiveResult::ok) {
    const auto& matrix = message.get<shoal::Array>();
    if (matrix.shape().size() != 2) throw shoal::NotPlain("want a matrix");
    if (sums.send(column_sums(matrix)) != shoal::SendResult::ok) break;
    ++count;
  }
  std::cout << count << " matrices summed\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << "column_sums: " << error.what() << '\n';
  return 1;
}
