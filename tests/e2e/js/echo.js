// All four kinds of calls with @grpc/grpc-js against tests/lib/rpc_test_server.c. Prints one JSON object.
// Usage: node echo.js PROTO_DIRECTORY ADDRESS CA_FILE
'use strict';
const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [proto, address, ca] = process.argv.slice(2);
const definition = loader.loadSync('echo.proto', { includeDirs: [proto, '/usr/include'], longs: String, keepCase: true });
const api = grpc.loadPackageDefinition(definition).harpoon.test.v1;
const client = new api.EchoService(address, grpc.credentials.createSsl(fs.readFileSync(ca)));
const soon = () => ({ deadline: Date.now() + 10000 });

function unary(request) {
  return new Promise((resolve) => {
    client.Echo(request, soon(), (error, answer) => resolve(error ? { code: error.code, details: error.details } : answer));
  });
}

function collect(texts) {
  return new Promise((resolve, reject) => {
    const stream = client.Collect(soon(), (error, answer) => (error ? reject(error) : resolve(answer.text)));
    texts.forEach((text) => stream.write({ text }));
    stream.end();
  });
}

function drain(stream) {
  return new Promise((resolve, reject) => {
    const answers = [];
    stream.on('data', (answer) => answers.push(answer));
    stream.on('end', () => resolve(answers));
    stream.on('error', reject);
  });
}

async function main() {
  const result = {};
  result.text = (await unary({ text: 'hello', number: '9007199254740993' })).text;
  result.number = (await unary({ number: '9007199254740993' })).number;
  result.error = await unary({ text: 'gone ä', fail_code: 5 });
  result.collected = await collect(['a', 'b', 'c']);
  result.repeated = (await drain(client.Repeat({ count: 200, size: 20000 }, soon()))).length;
  const chat = client.Chat(soon());
  const answers = drain(chat);
  ['x', 'y'].forEach((text) => chat.write({ text }));
  chat.end();
  result.chat = (await answers).map((answer) => answer.text);
  result.deadline = await new Promise((resolve) => {
    client.Echo({ hang: true }, { deadline: Date.now() + 100 }, (error) => resolve(error.code));
  });
  result.cancelled = await new Promise((resolve) => {
    const stream = client.Repeat({ count: 1, hang: true }, soon());
    stream.on('data', () => stream.cancel());
    stream.on('error', (error) => resolve(error.code));
  });
  console.log(JSON.stringify(result));
  client.close();
}

main();
