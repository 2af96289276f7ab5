// Answers what Node would answer by itself, in the form of all other problems: what is no HTTP request, or one with too many headers, CONNECT, Expect.
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import { STATUS_CODES } from "node:http"
import type { Socket } from "node:net"
import type { Metrics } from "./metrics.ts"
import { Problem, problemBody } from "./problem.ts"

/** An error of Node's parser, or of the socket. */
interface ParserError {
  readonly code?: string
  /** What the parser found, which Deno does not say. */
  readonly reason?: string
}
const problemOf = ({ code, reason }: ParserError): Problem => {
  if (code === "HPE_HEADER_OVERFLOW")
    return new Problem(
      431,
      "headers_too_large",
      "the URL and the headers have more than 16 KiB together",
      "send shorter ones, and large values in the body"
    )
  if (code === "ERR_HTTP_REQUEST_TIMEOUT")
    return new Problem(408, "request_timeout", "the request was not complete in time", "send it again, faster")
  const found = reason === undefined || reason === "Parse Error" ? "" : `: ${reason}`
  return new Problem(400, "invalid_request", `the request is not HTTP/1.1${found}`, "send a complete HTTP request")
}

/** What `answerParserErrors` returns. */
export interface ParserErrors {
  /** Answers a request that could not be read, and closes its connection. */
  readonly clientError: (error: ParserError, socket: Socket) => void
  /** Answers requests that Node gives to no route. */
  readonly listen: (server: Server) => void
}
/** The answers to what no route gets to see. Each is counted, and ends its connection. */
export const answerParserErrors = (metrics: Metrics): ParserErrors => {
  /** The latest response of each connection. */
  const responses = new WeakMap<Socket, ServerResponse>()
  const end = (socket: Socket, problem: Problem, headers?: ReadonlyArray<string>): void => {
    metrics.refused(problem.code)
    endWith(socket, problem, headers)
  }
  return {
    clientError: (error, socket) => {
      const { code } = error
      // a handshake of TLS that failed, or plain HTTP in its place: nothing that is sent would be understood
      if (code?.startsWith("ERR_SSL") === true || code?.startsWith("ERR_TLS") === true) return void socket.destroy()
      if (code === "ECONNRESET") return
      // in the middle of a response, as that of a stream, an answer would be read as a part of it
      const response = responses.get(socket)
      if (response?.headersSent === true && !response.writableFinished) {
        metrics.refused(problemOf(error).code)
        return void socket.destroy()
      }
      end(socket, problemOf(error))
    },
    listen: (server) => {
      server.on("request", ({ socket }, response) => responses.set(socket, response))
      server.on("connect", ({ url = "" }: IncomingMessage, socket) => {
        const message = `CONNECT ${url.slice(0, 200)} asks for a tunnel; this server is no proxy`
        const problem = new Problem(405, "method_not_allowed", message, "send requests to the server itself")
        end(socket as Socket, problem, ["Allow: GET, HEAD, OPTIONS, POST"])
      })
      // Node would answer with an empty body
      server.on("checkExpectation", ({ headers }: IncomingMessage, response) => {
        const message = `the header Expect is ${JSON.stringify(headers.expect)}; only 100-continue is supported`
        const problem = new Problem(417, "invalid_request", message, "leave the header out, or send 100-continue")
        metrics.refused(problem.code)
        const body = JSON.stringify(problemBody(problem, undefined))
        const type = "application/json; charset=utf-8"
        // the body, if there is one, is not read
        response.writeHead(417, {
          "content-type": type,
          "content-length": Buffer.byteLength(body),
          connection: "close"
        })
        response.end(body)
      })
    }
  }
}

/** Answers a request with a problem on its bare socket, and closes the connection. `headers`: further lines of the head. */
export const endWith = (socket: Socket, problem: Problem, headers: ReadonlyArray<string> = []): void => {
  if (socket.destroyed) return
  // of a request for CONNECT, Node no longer listens
  socket.on("error", () => {})
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
