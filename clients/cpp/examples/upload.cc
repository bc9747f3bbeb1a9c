// Stores an image and tells how far it came: `upload PHOTO`.

#include <cstdlib>
#include <iostream>

#include "camserve/client.h"

int main(int count, char** arguments) {
  const char* target = std::getenv("CAM_ADDRESS");
  const char* token = std::getenv("CAM_TOKEN");
  if (count < 2 || target == nullptr || token == nullptr) {
    std::cerr << "usage: CAM_ADDRESS=host:port CAM_TOKEN=… upload PHOTO\n";
    return 2;
  }
  const camserve::Client client(target, token);
  try {
    const auto stored = client.Upload(arguments[1], [](auto sent_bytes, auto total_bytes) {
      std::cout << sent_bytes << " of " << total_bytes << " bytes" << std::endl;
    });
    std::cout << stored.storage_id() << ' ' << stored.sha256() << '\n';
  } catch (const camserve::Error& refused) {
    std::cerr << refused.what() << '\n';
    return 1;
  }
}
