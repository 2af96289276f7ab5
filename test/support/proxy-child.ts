// The process of a proxy: it prints its port, then takes ports to go to and orders to cut, and ends with its standard input; not a test itself.
import net from "node:net"
import { createInterface } from "node:readline"

const sockets = new Set<net.Socket>()
let target = 0
const server = net.createServer((client) => {
  const backend = net.connect(target, "127.0.0.1")
  for (const [socket, other] of [
    [client, backend],
    [backend, client]
  ] as const) {
    sockets.add(socket)
    socket.on("error", () => undefined)
    socket.once("close", () => {
      sockets.delete(socket)
      other.destroy()
    })
    socket.pipe(other)
  }
})
createInterface({ input: process.stdin })
  .on("line", (order) => {
    if (order !== "cut") return void (target = Number(order))
    process.stdout.write(`${sockets.size / 2}\n`)
    for (const socket of sockets) socket.destroy()
  })
  .on("close", () => process.exit(0))
server.listen(0, "127.0.0.1", () => process.stdout.write(`${(server.address() as net.AddressInfo).port}\n`))
