import { connect, createServer, type AddressInfo, type Socket } from "node:net";

/** Hands bytes to the service and back, counts those that were sent, and cuts what is open when told to. */
export async function proxy(target: string): Promise<{ port: number; sent: () => number; cut: () => void; close: () => void }> {
  const [host = "", port = ""] = target.split(":");
  const open = new Set<Socket>();
  let sent = 0;
  const server = createServer((from) => {
    const to = connect(Number(port), host);
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      open.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
    from.on("data", (data) => (sent += data.length));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => open.forEach((one) => one.destroy());
  const close = () => {
    cut();
    server.close();
  };
  return { port: (server.address() as AddressInfo).port, sent: () => sent, cut, close };
}
