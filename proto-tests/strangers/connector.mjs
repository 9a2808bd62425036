// @google-cloud/cloud-sql-connector with node-postgres, driven as stranger.py is: a JSON request a line, one answer
// a line. `open` makes a connector and connects once, so that it holds a certificate; `connect` uses the one open.
import {createInterface} from 'node:readline';
import {Connector} from '@google-cloud/cloud-sql-connector';
import {ExternalAccountClient} from 'google-auth-library';
import pg from 'pg';

let connector;
let options;

// A background refresh that fails tells the socket; node-postgres reports what matters here.
process.on('uncaughtException', error => console.error(error));

async function act(request) {
  if (request.act === 'close') return closed();
  if (request.act === 'open') {
    closed();
    const auth = ExternalAccountClient.fromJSON({
      ...request.credentials,
      // A token that the application brings, as the library's documentation has it.
      credential_source: undefined,
      subject_token_supplier: {getSubjectToken: async () => request.subject_token},
    });
    auth.scopes = ['https://www.googleapis.com/auth/cloud-platform'];
    connector = new Connector({auth, sqlAdminAPIEndpoint: request.sqladmin});
    options = await connector.getOptions({
      instanceConnectionName: request.instance,
      ipType: 'PUBLIC',
      authType: request.password === undefined ? 'IAM' : 'PASSWORD',
    });
  }
  const client = new pg.Client({
    ...options,
    user: request.user,
    database: request.database,
    password: request.password,
    connectionTimeoutMillis: 20000,
  });
  // A client that was refused is not ended: it never says that it has.
  client.on('error', error => console.error(error));
  await client.connect();
  try {
    return (await client.query('select session_user::text as name')).rows[0].name;
  } finally {
    await client.end();
  }
}

function closed() {
  connector?.close();
  connector = undefined;
  return 'closed';
}

for await (const line of createInterface({input: process.stdin})) {
  let answer;
  try {
    answer = {ok: await act(JSON.parse(line))};
  } catch (error) {
    console.error(error);
    answer = {error: `${error.code ?? error.name}: ${error.message}`};
  }
  console.log(JSON.stringify(answer));
}
process.exit(0);
