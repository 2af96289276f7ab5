// The process of a proxy: it prints its port, then takes ports to go to and orders to cut, and ends with its standard input; not a test itself.
import { createInterface } from "node:readline"
import { Cutter } from "./cutter.ts"

const cutter = new Cutter()
await cutter.open()
createInterface({ input: process.stdin })
  .on("line", (order) => {
    if (order === "cut") process.stdout.write(`${cutter.cut()}\n`)
    else cutter.target = Number(order)
  })
  .on("close", () => process.exit(0))
process.stdout.write(`${cutter.port}\n`)
