// Runs the contract of the log on a real Kafka, if one is available.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { shared } from "../../stack/testing.ts"
import * as KafkaLog from "../../src/kafka/log/log.ts"
import { needing } from "../support/stack.ts"
import { logContractUncleaned } from "./log.ts"

const suite = await needing("kafka")
suite("on Kafka", () => {
  logContractUncleaned(
    "Kafka",
    Layer.unwrap(
      Effect.map(shared("kafka"), (endpoints) =>
        KafkaLog.layer({ brokers: endpoints.MILLRACE_KAFKA_BROKERS!.split(",") })
      )
    )
  )
})
