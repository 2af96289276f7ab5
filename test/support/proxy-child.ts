// The process behind `proxy.ts`: prints its port, reads target ports and `cut` from standard input line by line, and ends when that closes.
import { createInterface } from "node:readline"
import { TcpProxy } from "./tcp-proxy.ts"

const proxy = new TcpProxy()
await proxy.open()
createInterface({ input: process.stdin })
  .on("line", (order) => {
    if (order === "cut") process.stdout.write(`${proxy.cut()}\n`)
    else proxy.target = Number(order)
  })
  .on("close", () => process.exit(0))
process.stdout.write(`${proxy.port}\n`)
