// The addon takes Node-API from the program that loads it, which need not be called node.exe: Electron is not. What
// node-gyp does for Microsoft's compiler, for MinGW, whose prebuilt binary is linked with a delayed import of node.exe.
#if defined(_WIN32) && !defined(_MSC_VER)

// The second needs the first.
// clang-format off
#include <windows.h>
#include <delayimp.h>
// clang-format on

namespace {

FARPROC WINAPI find_host(unsigned event, DelayLoadInfo* info) {
  if (event != dliNotePreLoadLibrary || ::lstrcmpiA(info->szDll, "node.exe") != 0) return nullptr;
  return reinterpret_cast<FARPROC>(::GetModuleHandleW(nullptr));
}

}  // namespace

PfnDliHook __pfnDliNotifyHook2 = find_host;

#endif  // _WIN32 && !_MSC_VER
