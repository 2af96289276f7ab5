// Millrace serves HTTP on 127.0.0.1 only. This lets other machines in: in production a reverse proxy with TLS and authentication does.
import { connect, createServer } from "node:net"

const [port, api] = [Number(process.env["PORT"] ?? 8080), Number(process.env["API_PORT"] ?? 7070)]
const server = createServer((client) => {
  const upstream = connect(api, "127.0.0.1")
  client.pipe(upstream).pipe(client)
  client.on("error", () => upstream.destroy())
  upstream.on("error", () => client.destroy())
})
server.listen(port, () => {
  const address = server.address()
  if (typeof address === "object") console.log(`port ${address?.port} leads to 127.0.0.1:${api}`)
})
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(0))
