// Why a server did not start. The errors of requests are in http/problem.ts.
import * as Schema from "effect/Schema"

/** Another program uses the requested port. */
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
/** The server cannot listen for another reason, such as a port below 1024 without the permission for it. */
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
