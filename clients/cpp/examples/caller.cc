// Uploads files as its standard input says; `python -m benchmarks.clients` measures it meanwhile.

#include <cstdlib>
#include <iostream>
#include <string>

#include "camserve/client.h"

int main() {
  const char* target = std::getenv("CAM_ADDRESS");
  const char* token = std::getenv("CAM_TOKEN");
  const std::string work = "upload ";
  if (target == nullptr || token == nullptr) {
    std::cerr << "usage: CAM_ADDRESS=host:port CAM_TOKEN=… caller < LINES\n";
    return 2;
  }
  const camserve::Client client(target, token);
  try {
    for (std::string line; std::getline(std::cin, line);) {
      if (line.compare(0, work.size(), work) != 0) {
        std::cerr << "what is to be done is `upload PATH`\n";
        return 2;
      }
      std::cout << client.Upload(line.substr(work.size())).storage_id() << std::endl;
    }
  } catch (const camserve::Error& refused) {
    std::cerr << refused.what() << '\n';
    return 1;
  }
}
