// Why a server did not start. Errors of requests are in problem.ts.
import * as Schema from "effect/Schema"

/** The port that was asked for is taken, or may not be used. */
export class PortInUse extends Schema.TaggedError<PortInUse>()("PortInUse", {
  host: Schema.String,
  port: Schema.Int
}) {
  override get message() {
    return `port ${this.port} on ${this.host} is in use by another program`
  }
  /** What to do about it. */
  get try() {
    return "stop that program, or choose another port (--port N; 0 picks a free one)"
  }
}
/** The server could not listen for another reason, as a port below 1024 without the right to it. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", {
  host: Schema.String,
  port: Schema.Int,
  cause: Schema.Defect()
}) {
  override get message() {
    return `cannot listen on ${this.host}:${this.port}: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
  /** What to do about it. */
  get try() {
    return "choose another port (--port N; 0 picks a free one)"
  }
}
