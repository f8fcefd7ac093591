import java.util.Base64;
import java.util.Properties;
import java.util.Scanner;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Publishes with the Java client what standard input says, for tests. A line is
 *
 *   producer NAME=VALUE ...   the next records come from a producer with these settings
 *   send PARTITION BASE64     one record; without the third word its value is null, with "=" empty
 *   begin | commit | abort    a transaction of a producer with transactional.id
 *
 * Arguments: the brokers and a topic. Any failure ends it with an exception.
 */
public class Produce {
    public static void main(String[] args) throws Exception {
        KafkaProducer<byte[], byte[]> producer = null;
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLine()) {
            String[] words = lines.nextLine().split(" ");
            switch (words[0]) {
                case "producer":
                    if (producer != null) {
                        producer.close();
                    }
                    Properties settings = new Properties();
                    settings.put("bootstrap.servers", args[0]);
                    for (int i = 1; i < words.length; i++) {
                        settings.put(words[i].split("=", 2)[0], words[i].split("=", 2)[1]);
                    }
                    producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                    if (settings.containsKey("transactional.id")) {
                        producer.initTransactions();
                    }
                    break;
                case "send":
                    byte[] value = words.length < 3 ? null : words[2].equals("=") ? new byte[0] : Base64.getDecoder().decode(words[2]);
                    producer.send(new ProducerRecord<>(args[1], Integer.valueOf(words[1]), null, value), (sent, failure) -> {
                        if (failure != null) {
                            failure.printStackTrace();
                            Runtime.getRuntime().halt(1);
                        }
                    });
                    break;
                case "begin":
                    producer.beginTransaction();
                    break;
                case "commit":
                    producer.commitTransaction();
                    break;
                case "abort":
                    producer.flush();
                    producer.abortTransaction();
                    break;
                default:
                    throw new IllegalArgumentException(words[0]);
            }
        }
        producer.close();
    }
}
