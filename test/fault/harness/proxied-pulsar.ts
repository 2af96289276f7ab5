// The proxies through which clients reach a Pulsar, natively and over its web interface, so that their connections can be cut.
import type { Endpoints } from "../../../stack/service.ts"
import { freePorts } from "../../../stack/ports.ts"
import { TcpProxy } from "../../support/tcp-proxy.ts"

/** A proxy for the broker and one for its web interface, which serves the admin interface and WebSocket. */
export class PulsarProxies {
  private readonly broker = new TcpProxy()
  private readonly web = new TcpProxy()
  private brokerPort = 0

  /** Opens both. Returns the properties of a broker that advertises the proxy instead of itself. */
  async open(): Promise<Readonly<Record<string, string>>> {
    await Promise.all([this.broker.open(), this.web.open()])
    const [inner = 0, outer = 0] = await freePorts(2)
    this.brokerPort = inner
    this.broker.target = outer
    return {
      brokerServicePort: String(inner),
      internalListenerName: "internal",
      advertisedListeners: `internal:pulsar://127.0.0.1:${inner},outer:pulsar://127.0.0.1:${this.broker.port}`,
      bindAddresses: `outer:pulsar://127.0.0.1:${outer}`,
      // longer than clients are silent: a process that is stopped loses its connection, and with it its producers' names
      webSocketSessionIdleTimeoutMillis: "15000"
    }
  }
  /** Names the endpoints of the broker once it has started. */
  started({ MILLRACE_PULSAR_ADMIN_URL }: Endpoints): void {
    this.web.target = Number(new URL(MILLRACE_PULSAR_ADMIN_URL!).port)
  }
  /** The endpoints through the proxies. */
  get through(): Endpoints {
    return endpoints(this.broker.port, this.web.port)
  }
  /** The endpoints past the proxies. */
  get direct(): Endpoints {
    return endpoints(this.brokerPort, this.web.target)
  }
  /** Cuts every connection, and returns how many there were. */
  cut(): number {
    return this.broker.cut() + this.web.cut()
  }
  async close(): Promise<void> {
    await Promise.all([this.broker.close(), this.web.close()])
  }
}
const endpoints = (broker: number, web: number): Endpoints => ({
  MILLRACE_PULSAR_URL: `pulsar://127.0.0.1:${broker}`,
  MILLRACE_PULSAR_ADMIN_URL: `http://127.0.0.1:${web}`
})
