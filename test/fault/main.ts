// `npm run fault`: which harness is asked for, Kafka's where none is named. It runs none itself.
const [, , name = ""] = process.argv
const named = ["kafka", "pulsar"].includes(name)
if (named) process.argv.splice(2, 1)
await(name === "pulsar" ? import("./pulsar/main.ts") : import("./kafka/main.ts"))
