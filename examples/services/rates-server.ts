// The other system: a server of exchange rates. It answers the first request for each currency with 503, as a busy server does.
import { createServer } from "node:http"

const rates = new Map([
  ["EUR", 1],
  ["GBP", 1.16],
  ["NOK", 0.085]
])
const asked = new Set<string>()

const server = createServer((request, response) => {
  const currency = request.url!.slice(1)
  if (request.method === "PUT") {
    request.setEncoding("utf8").on("data", (rate: string) => {
      rates.set(currency, Number(rate))
      response.end(`one ${currency} is ${rate} EUR\n`)
    })
    return
  }
  const rate = rates.get(currency)
  const isFirst = !asked.has(currency)
  asked.add(currency)
  const [status, text] = isFirst ? [503, "busy"] : rate === undefined ? [404, "unknown"] : [200, String(rate)]
  console.log(`${currency}: ${status}`)
  response.writeHead(status).end(text)
})
server.listen(Number(process.env["RATES_PORT"] ?? 7071), "127.0.0.1", () => {
  const address = server.address()
  if (typeof address === "object") console.log(`exchange rates at http://127.0.0.1:${address?.port}`)
})
