// Answers what is no HTTP request, or has headers that are too large, in the form of all other problems.
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import { Problem, problemBody } from "./problem.ts"

const problemOf = (code: string | undefined): Problem => {
  if (code === "HPE_HEADER_OVERFLOW")
    return new Problem(
      431,
      "headers_too_large",
      "the URL and the headers have more than 16 KiB together",
      "send shorter ones, and large values in the body"
    )
  return code === "ERR_HTTP_REQUEST_TIMEOUT"
    ? new Problem(408, "request_timeout", "the request was not complete in time", "send it again, faster")
    : new Problem(400, "invalid_request", "the request is not HTTP/1.1", "send a complete HTTP request")
}
/** Answers a request that could not be read, and closes its connection. */
export const clientError = ({ code }: { readonly code?: string }, socket: Socket): void => {
  // a handshake of TLS that failed, or plain HTTP in its place: nothing that is sent would be understood
  if (code?.startsWith("ERR_SSL") === true || code?.startsWith("ERR_TLS") === true) return void socket.destroy()
  if (code !== "ECONNRESET") endWith(socket, problemOf(code))
}

/** Answers a request with a problem on its bare socket, and closes the connection. `headers`: further lines of the head. */
export const endWith = (socket: Socket, problem: Problem, headers: ReadonlyArray<string> = []): void => {
  if (socket.destroyed) return
  if (!socket.writable) return void socket.destroy()
  const body = JSON.stringify(problemBody(problem, undefined))
  const head = [
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Content-Type: application/json; charset=utf-8",
    "Connection: close",
    ...headers
  ]
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`, () => socket.destroySoon())
}

/** Answers a request that expects anything but `100-continue`, which Node would answer with an empty body. */
export const refuseExpectation = ({ headers }: IncomingMessage, response: ServerResponse): void => {
  const message = `the header Expect is ${JSON.stringify(headers.expect)}; only 100-continue is supported`
  const problem = new Problem(417, "invalid_request", message, "leave the header out, or send 100-continue")
  // the body, if there is one, is not read
  response.writeHead(problem.status, { "content-type": "application/json; charset=utf-8", connection: "close" })
  response.end(JSON.stringify(problemBody(problem, undefined)))
}
